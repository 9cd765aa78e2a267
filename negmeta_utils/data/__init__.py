"""Data sets: `datasets.load` reads a split; the rest recognises, decodes and fetches."""
