"""The figures of a report: found by what notebooks save, captioned by what they say above them."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.figure import Figure
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from PIL import Image

from negmeta_utils.plots.style import describe
from negmeta_utils.studies import harmless_html

LARGEST_SVG = 1_000_000  # bytes; a larger drawing is shown as pixels
DPI = 150 / 96  # pixels of a saved figure to one on the page


@dataclass(frozen=True)
class Caption:
    title: str
    text: Markup


def plots(jobs: list[tuple[Path, NotebookNode, str]]) -> list[dict]:
    """The figures of one notebook: title, caption, and a picture from each of its jobs.

    jobs: folder, executed notebook, and what sets the job apart from the others, in words.
    """
    found: dict[str, dict] = {}
    for folder, notebook, which in jobs:
        known = captions(notebook)
        saved = sorted({p.stem for s in ("png", "svg") for p in folder.glob(f"*.{s}")})
        for name in sorted(saved, key=[*known, *saved].index):  # as the notebook saves them
            caption = known.get(name, Caption(name.replace("_", " "), Markup()))
            new = {"name": name, "title": caption.title, "caption": caption.text, "pictures": []}
            found.setdefault(name, new)["pictures"].append(
                picture(folder, name, caption.title, which)
            )
    return list(found.values())


def captions(notebook: NotebookNode) -> dict[str, Caption]:
    """Figure's name -> the last heading, and the text, above the cell that saves it."""
    found, title, text = {}, "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            if headings := re.findall(r"^#+ +(.*)$", cell.source, re.M):
                title = headings[-1]
            text = re.sub(r"^.*^#+ [^\n]*$", "", cell.source, flags=re.M | re.S)
        elif ".save(" in cell.source:
            for name in re.findall(r"""["']([\w-]+)["']""", cell.source):
                found[name] = Caption(title, from_markdown(text))
    return found


def picture(folder: Path, name: str, title: str, which: str) -> dict:
    """One figure as data: the drawing where there is one of sensible size, else its pixels."""
    drawing, pixels = folder / f"{name}.svg", folder / f"{name}.png"
    as_drawing = drawing.is_file() and (
        not pixels.is_file() or drawing.stat().st_size <= LARGEST_SVG
    )
    shown, kind = (drawing, "svg+xml") if as_drawing else (pixels, "png")
    words, width, height = "", None, 1
    if pixels.is_file():
        with Image.open(pixels) as image:
            words, (width, height) = image.info.get("Description", ""), image.size
    content = base64.b64encode(shown.read_bytes()).decode()
    return {
        "src": f"data:image/{kind};base64,{content}",
        "alt": ". ".join(part for part in (title, which, words) if part),
        "which": which,
        "width": width and round(width / DPI),
        "wide": width is not None and width / height > 2.4,
    }


def drawn(figure: Figure, title: str) -> dict:
    """A figure of the report's own, as `picture` gives those of notebooks."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    content = base64.b64encode(file.getvalue()).decode()
    plt.close(figure)
    return {
        "src": f"data:image/png;base64,{content}",
        "alt": f"{title}. {describe(figure)}",
        "which": "",
        "width": None,
        "wide": False,
    }


def from_markdown(text: str) -> Markup:
    """HTML of a piece of Markdown that stands below a heading of the third level, cleaned."""
    below = re.sub(r"^#+ ", "#### ", text, flags=re.M)
    html = harmless_html.clean(markdown2html(below))
    return Markup(re.sub(r"<th(?=[\s>])", '<th scope="col"', html))
