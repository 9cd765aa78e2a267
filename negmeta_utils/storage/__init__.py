"""Files: whole or not there, each with a digest, in folders of one process at a time."""
