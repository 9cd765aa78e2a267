"""The meta-gradient of `adaptation`, the same numbers faster. Skip it on first reading."""
