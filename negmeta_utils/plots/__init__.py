"""Every figure of the study, in one style: tables in, figures out."""
