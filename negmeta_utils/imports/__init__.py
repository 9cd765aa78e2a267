"""Weights that others trained, as runs of this study: `negmeta import`."""
