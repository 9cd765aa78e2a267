"""Grids of notebooks: planned, executed side by side, told of, reported, and the command line."""

import sys

# jsonschema, which nbformat needs, imports this where JupyterLab has brought it. It takes three CPU
# seconds to build its grammar, of a kind of address that no notebook's schema has.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
