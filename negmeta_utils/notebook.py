"""How a notebook begins, how it shows progress, and how it ends: with its answers."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import get_origin

from IPython import get_ipython
from IPython.core.interactiveshell import ExecutionResult
from IPython.display import Markdown, Pretty, display

from negmeta_utils.parameters import PROGRESS_FILE, check_type, check_value, refuse_unknown
from negmeta_utils.plots.style import set_style


def begin(notebook: dict, **least: int) -> None:
    """Set the style of all figures and check the notebook's parameters.

    notebook: its globals(). least: of parameters that are whole numbers, the smallest value that
    each may have. Raises ValueError, naming the parameter, where one cannot have its value or is of
    another type (papermill's `-p NAME false` is a text), and where papermill or a study set one
    that the notebook does not have. Lists are checked where they are used.
    """
    refuse_unknown(notebook)
    kinds = notebook["__annotations__"]
    for name, kind in kinds.items():
        if get_origin(kind) is not list:
            check_type(name, notebook[name], kind)
    for name, smallest in least.items():
        check_value(name, notebook[name], kinds[name], smallest)
    set_style()


def progress() -> Callable[[str], None]:
    """Show a line below the cell; returns the function that replaces its text. It is gone when the
    cell has ended well. A study, which shows it on the terminal, has it in a file as well."""
    line = display(Pretty("starting"), display_id=True)
    file = os.environ.get(PROGRESS_FILE)
    shell = get_ipython()

    def end(result: ExecutionResult) -> None:
        shell.events.unregister("post_run_cell", end)
        if result.success:
            line.update(Pretty(""))

    if shell:
        shell.events.register("post_run_cell", end)

    def show(text: str) -> None:
        line.update(Pretty(text))
        if file:
            with suppress(OSError):  # a full disk may have room again at the next checkpoint
                Path(file).write_text(text, encoding="utf-8")

    return show


def write_summary(folder: Path, question: str, answers: Iterable[str]) -> Markdown:
    """Write `folder`/summary.md, where the report finds it: the question and a list of answers,
    each a sentence in Markdown. Returns the list, to be shown."""
    listed = "\n".join(f"- {answer}" for answer in answers)
    (folder / "summary.md").write_text(f"**{question}**\n\n{listed}\n", encoding="utf-8")
    return Markdown(listed)
