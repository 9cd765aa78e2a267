"""HTML of notebooks without what could act: names of folders and files may stand in it."""

import nh3
from nbconvert import HTMLExporter

ATTRIBUTES = nh3.ALLOWED_ATTRIBUTES | {"*": {"class", "id"}}
SCHEMES = nh3.ALLOWED_URL_SCHEMES | {"data"}  # of pictures


def exporter() -> HTMLExporter:
    """Of notebooks' pages: what Markdown and outputs hold is cleaned, and no output is a script."""
    made = HTMLExporter(sanitize_html=True)
    made.register_filter("clean_html", clean)
    return made


def clean(html: str) -> str:
    """`html` without scripts, styles, event handlers, and tags that are not for text."""
    return nh3.clean(html, attributes=ATTRIBUTES, url_schemes=SCHEMES)
