"""The parameters of a notebook, held to their names, types and ranges."""

import ast
import math
from typing import Any, get_args

IN_WORDS = {
    int: "a whole number",
    float: "a number (in YAML 1.0e-3, not 1e-3)",
    str: "text",
    bool: "True or False",
    type(None): "None",
}
BEST = "best"  # in a run's name or a study's `at`: the network at the best validation
PROGRESS_FILE = "NEGMETA_PROGRESS"  # the variable that names where a notebook tells its progress
PAPERMILLS_OWN = "PAPERMILL_"  # how the names begin that its --inject-paths adds


def check_value(name: str, value: Any, kind: Any, least: int = 1) -> None:
    """Raise ValueError where parameter `name` cannot have that value.

    kind: int, from `least` on; float, positive and finite, which an int may be too; str; bool; or
    one of these as Optional.
    """
    check_type(name, value, kind)
    kinds = get_args(kind) or (kind,)
    if float in kinds and value is not None and not 0 < value < math.inf:
        raise ValueError(f"{name}={value}: must be a positive number")
    if type(value) is int and value < least and float not in kinds:
        raise ValueError(f"{name}={value}: must be at least {least}")
    if type(value) is int and value >= 2**63:
        raise ValueError(f"{name}={value}: too large; must be below 2^63")


def check_type(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError where parameter `name` is of another type; kind as for `check_value`."""
    kinds = get_args(kind) or (kind,)
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        raise ValueError(f"{name}={value!r}: must be {' or '.join(IN_WORDS[k] for k in kinds)}")


def check_numbers(name: str, value: object, example: str, least: int = 1) -> None:
    """Raise ValueError where parameter `name` is no list of whole numbers from `least` on, or an
    empty one. example: what it could be."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name}={value!r}: must be a list of whole numbers, such as {example}")
    for number in value:
        check_value(name, number, int, least)


def check_folders(name: str, value: object) -> None:
    """Raise ValueError where parameter `name` is no list of folders, or an empty one."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{name}={value!r}: must be a list of folders, such as [runs/by-hand]")


def refuse_unknown(notebook: dict) -> None:
    """Raise ValueError where papermill set a parameter that the notebook does not have: papermill
    itself only warns, and all would run with the default.

    notebook: its globals().
    """
    known = notebook["__annotations__"]
    for cell in notebook["In"]:
        if cell.startswith("# Parameters\n"):  # so begins what papermill injects
            for target in [target for line in ast.parse(cell).body for target in line.targets]:
                if target.id not in known and not target.id.startswith(PAPERMILLS_OWN):
                    raise ValueError(
                        f"{target.id}: the notebook has no such parameter; it has "
                        f"{', '.join(known)}"
                    )
