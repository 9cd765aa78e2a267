"""Make notebooks as the repository keeps them: `python tools/tidy_notebooks.py [NOTEBOOK ...]`.

A notebook gets its Colab badge and the install cell, and loses what differs from one execution to
the next though nothing changed. Outputs stay: nbval compares some, and readers see the others.
Exit status 1 if a notebook was changed, as pre-commit wants it.
"""

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
REPOSITORY = "OWNER/negmeta"  # on GitHub; see CONTRIBUTING.md
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"
)
INSTALL_ID = "colab"
INSTALL = """\
import sys

if "google.colab" in sys.modules:  # anywhere else the package is installed already
    !git clone --quiet https://github.com/{repository} negmeta
    %pip install --quiet --editable negmeta
    sys.path.insert(0, "negmeta")"""
KEPT_METADATA = {"tags", "jupyter"}
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def tidy(notebook: NotebookNode, name: str) -> None:
    """Give the notebook `name` its badge and install cell, and take the noise off, in place."""
    add_badge(notebook, name)
    add_install(notebook)
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    language = notebook.metadata.get("language_info", {})
    language.pop("version", None)
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info=language)
    count, tables = 0, {}
    for number, cell in enumerate(notebook.cells):
        cell.setdefault("id", f"cell-{number}")
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT_METADATA}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = steady_outputs(cell, tables)


def add_badge(notebook: NotebookNode, name: str) -> None:
    """The badge below the title; an older one is replaced."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    rest = re.sub(r"\A\n*\[!\[Open in Colab\][^\n]*\n*", "", rest).lstrip("\n")
    badge = BADGE.format(repository=REPOSITORY, name=name)
    first.source = "\n\n".join(part for part in (title, badge, rest) if part)


def add_install(notebook: NotebookNode) -> None:
    """The install cell below the first cell."""
    install = nbformat.v4.new_code_cell(INSTALL.format(repository=REPOSITORY), id=INSTALL_ID)
    others = [cell for cell in notebook.cells if cell.get("id") != INSTALL_ID]
    notebook.cells = [others[0], install, *others[1:]]


def steady_outputs(cell: NotebookNode, tables: dict[str, str]) -> list[NotebookNode]:
    """A code cell's outputs without addresses, random names and the live part of widgets.

    tables: the notebook's styled tables so far, pandas' random name -> its number; added to.
    """
    outputs: list[NotebookNode] = []
    for output in cell.outputs:
        last = outputs[-1] if outputs else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last["text"] += output.text  # how the kernel's messages were cut is chance
            continue
        if "execution_count" in output:
            output.execution_count = cell.execution_count
        data = output.get("data", {})
        data.pop(WIDGET, None)
        for kind in ("text/plain", "text/html"):
            if kind in data:
                data[kind] = steady_text(data[kind], tables)
        outputs.append(output)
    return outputs


def steady_text(text: str, tables: dict[str, str]) -> str:
    text = re.sub(r"(<[\w.]+(?: object)?) at 0x[0-9a-f]+>", r"\1>", text)
    return re.sub(
        r"\bT_[0-9a-f]{5}(?=[_\" ])",
        lambda found: tables.setdefault(found[0], f"T_{len(tables):05}"),
        text,
    )


def tidied(path: Path) -> str:
    """What the file of a notebook ought to hold."""
    notebook = nbformat.read(path, 4)
    tidy(notebook, path.name)
    return nbformat.writes(notebook) + "\n"


def main(paths: list[str]) -> int:
    changed = []
    for path in map(Path, paths) if paths else sorted(NOTEBOOKS.glob("*.ipynb")):
        content = tidied(path)
        if content != path.read_text(encoding="utf-8"):
            path.write_text(content, encoding="utf-8")
            changed.append(path.name)
    if changed:
        print("tidied", *changed)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
