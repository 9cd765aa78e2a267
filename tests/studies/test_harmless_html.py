"""What a folder or file is called does not act in a report."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from negmeta_utils.evidence.contrasts import sentence
from negmeta_utils.studies import harmless_html
from negmeta_utils.studies.report_figures import from_markdown

NAMES = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<svg onload=alert(1)>",
    "<a href='javascript:alert(1)'>a</a>", "[a](javascript:alert(1))", "<iframe src=x></iframe>",
    "<style>@import 'x'</style>", "<form action=x><button>a</button></form>",
    "[a](<data:text/html,<script>alert(1)</script>>)", "</div><base href=x>",
]  # fmt: skip
ACTIVE = ["script", "svg", "iframe", "style", "form", "button", "base", "object", "embed"]


def what_acts(html):
    """Elements and attributes that a browser would do something about."""
    soup = BeautifulSoup(html, "html.parser")
    links = [tag["href"] for tag in soup.find_all("a", href=True)]
    return (
        soup.find_all(ACTIVE)
        + [a for tag in soup.find_all(True) for a in tag.attrs if a.startswith("on")]
        + [link for link in links if link.split(":")[0] in ("javascript", "data")]
    )


def page_of(*texts):
    """A notebook's page that shows each text in Markdown and in every kind of output: its title,
    and its cells."""
    kinds = ("text/html", "text/markdown", "text/plain", "application/javascript", "image/svg+xml")
    outputs = [
        nbformat.v4.new_output("display_data", {kind: f"<p>{text}</p>" if "html" in kind else text})
        for text in texts
        for kind in kinds
    ]
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    cells.append(nbformat.v4.new_code_cell("", outputs=outputs))
    page, _ = harmless_html.exporter().from_notebook_node(
        nbformat.v4.new_notebook(cells=cells), resources={"metadata": {"name": texts[0]}}
    )
    title = page[page.index("<title") : page.index("</title>")]
    return title, page[page.index("<main") : page.index("</main>")]


def test_names_do_not_act_on_a_notebooks_page():
    title, cells = page_of(*NAMES)
    assert not what_acts(title) + what_acts(cells)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_does_not_act_in_a_report_and_stands_there_as_it_is(name):
    assert not what_acts(from_markdown(f"**Data:** {name}"))
    row = pd.Series({"points": 1.0, "low": np.nan, "verdict": "undecided", "seeds": 1})
    shown = from_markdown(sentence(row, f"folder:/data/{name}, off-task"))
    text = BeautifulSoup(shown, "html.parser").text.replace("’", "'")
    assert text.startswith(f"folder:/data/{name}, off-task: +1.00")


def test_what_notebooks_show_stays():
    text = (
        "# Title\n\n| a | b |\n| --- | --- |\n| 1 | **2** |\n\n![p](a.png) [l](https://x.org) `c`\n"
        "![q](data:image/png;base64,AA==)"
    )
    _, cells = page_of(text)
    for html in (cells, from_markdown(text)):
        for part in ("<thead>", "<td>1</td>", "<strong>2</strong>", 'src="a.png"',
                     'href="https://x.org"', "<code>c</code>", "data:image/png"):  # fmt: skip
            assert part in html
    assert "<h1" in cells
    assert '<th scope="col">' in from_markdown(text)
