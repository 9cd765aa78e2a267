"""Every figure of the study but for those of notebook 0 (`explore`), in one style: tables in,
figures out."""
