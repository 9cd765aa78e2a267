"""Grids of notebooks: planned, executed side by side, told of, reported, and the command line."""
