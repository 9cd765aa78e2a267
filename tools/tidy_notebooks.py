"""Make notebooks as the repository keeps them: `python tools/tidy_notebooks.py [NOTEBOOK ...]`.

A notebook loses what differs from one execution to the next though nothing changed. Outputs stay:
nbval compares some, and readers see the others. Figures that text cells show are put into the
notebook, and cells of imports alone are hidden. Exit status 1 if a notebook was changed, as
pre-commit wants it.

`--repository OWNER/NAME` says where on GitHub this copy lies, once, in CITATION.cff. Notebooks then
get a Colab badge and the cell that installs the package there; without it they have neither.
"""

import argparse
import ast
import re
import sys
from base64 import b64encode
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS, CITATION = ROOT / "notebooks", ROOT / "CITATION.cff"
FIGURES = ROOT / "figures"
GITHUB = "https://github.com/"
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


def repository() -> str | None:
    """OWNER/NAME of this copy on GitHub; None where CITATION.cff does not say."""
    found = re.search(rf"^repository-code: {GITHUB}(\S+)$", CITATION.read_text(), re.M)
    return found[1] if found else None


def set_repository(name: str) -> None:
    """Write OWNER/NAME to CITATION.cff. Raises ValueError where it is not of that form."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"--repository {name}: write OWNER/NAME")
    text = re.sub(r"^repository-code: .*\n", "", CITATION.read_text(), flags=re.M)
    CITATION.write_text(text.replace("license:", f"repository-code: {GITHUB}{name}\nlicense:", 1))


def tidy(notebook: NotebookNode, name: str, repository: str | None) -> None:
    """Take the noise off the notebook `name`, and give it badge and install cell where
    `repository` is known, in place."""
    add_badge(notebook, name, repository)
    add_install(notebook, repository)
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
            if only_imports(cell.source):
                cell.metadata["jupyter"] = {"source_hidden": True}
                cell.metadata["cellView"] = "form"  # the same in Colab
            cell.outputs = steady_outputs(cell, tables)
        else:
            attach(cell)


def add_badge(notebook: NotebookNode, name: str, repository: str | None) -> None:
    """The badge below the title; an older one goes."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n")
    rest = re.sub(r"\A\n*\[!\[Open in Colab\][^\n]*\n*", "", rest).lstrip("\n")
    badge = BADGE.format(repository=repository, name=name) if repository else ""
    first.source = "\n\n".join(part for part in (title, badge, rest) if part)


def add_install(notebook: NotebookNode, repository: str | None) -> None:
    """The install cell below the first cell, hidden in JupyterLab; an older one goes."""
    notebook.cells = [cell for cell in notebook.cells if cell.get("id") != INSTALL_ID]
    if repository:
        source = INSTALL.format(repository=repository)
        install = nbformat.v4.new_code_cell(source, id=INSTALL_ID)
        install.metadata["jupyter"] = {"source_hidden": True}
        notebook.cells.insert(1, install)


def only_imports(source: str) -> bool:
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a command of IPython's
        return False
    return bool(statements) and all(
        isinstance(statement, (ast.Import, ast.ImportFrom)) for statement in statements
    )


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
        if data == {"text/plain": ""}:
            continue  # a line of progress that has ended
        data.pop(WIDGET, None)
        for kind in ("text/plain", "text/html"):
            if kind in data:
                data[kind] = steady_text(data[kind], tables)
        outputs.append(output)
    return outputs


def attach(cell: NotebookNode) -> None:
    """The figures that a text cell shows as `attachment:PATH`, below `figures`, as they are now: a
    link beside the notebook would break in every copy of it."""
    names = re.findall(r"\]\(attachment:([^)]+)\)", cell.source)
    cell.pop("attachments", None)
    if names:
        of = {name: b64encode((FIGURES / name).read_bytes()).decode() for name in names}
        cell["attachments"] = {name: {"image/png": content} for name, content in of.items()}


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
    tidy(notebook, path.name, repository())
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tidy_notebooks.py", description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--repository", metavar="OWNER/NAME")
    options = parser.parse_args(arguments)
    if options.repository:
        set_repository(options.repository)
    changed = []
    for path in options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        content = tidied(path)
        if content != path.read_text(encoding="utf-8"):
            path.write_text(content, encoding="utf-8")
            changed.append(path.name)
    if changed:
        print("tidied", *changed)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
