"""The shape of one case of bad input; `test_bad_input` runs the tables that are made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One thing a user may get wrong, through one door.

    name: what is wrong, in words. door: "negmeta" (the command line) or "papermill" (a notebook).
    prepare: makes what the case needs below the temporary folder it is given, and returns the
    arguments after `negmeta` or after `papermill`. words: what the one line of error must hold.
    """

    name: str
    door: str
    prepare: Callable[[Path], list[str]]
    words: tuple[str, ...]
