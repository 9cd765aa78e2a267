"""The meta-gradient of `adaptation` computed faster. A first reading can leave this folder out."""
