"""Whether notebooks will take the values that a study gives them, asked before a kernel starts:
each would refuse them itself, but in a kernel of its own and once for every job."""

import ast
import functools
import itertools
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Optional

import nbformat

from negmeta_utils.config import TrainConfig
from negmeta_utils.data import datasets
from negmeta_utils.parameters import check_type, check_value
from negmeta_utils.studies.planning import Job

PLAIN = {kind.__name__: kind for kind in (bool, float, int, str)}
KINDS = PLAIN | {f"Optional[{name}]": Optional[kind] for name, kind in PLAIN.items()}
TRAINING = {field.name for field in fields(TrainConfig)}


def check_values(steps: dict[str, dict]) -> None:
    """Raise ValueError for a value of the wrong type, below the least that the notebook's
    `nm.begin` admits, or that no training may have.

    steps: as `study_file.read_study` returns them. What a step takes from another is not looked at.
    """
    for step, content in steps.items():
        kinds, defaults, least = _declared(content["path"])
        for values in itertools.product(*content["grid"].values()):
            given = content["parameters"] | dict(zip(content["grid"], values, strict=True))
            try:
                for name, value in given.items():
                    _check(name, value, kinds.get(name), least.get(name))
                if set(kinds) >= TRAINING:
                    TrainConfig(**{name: (defaults | given)[name] for name in TRAINING})
            except ValueError as error:
                raise ValueError(f"step {step!r}: {error}") from error


def check_data(jobs: Iterable[Job]) -> None:
    """Raise FileNotFoundError or ValueError, as `datasets.locate` does, where the data set of one
    of these trainings is not on this machine."""
    of_notebook = functools.cache(_declared)
    for job in jobs:
        kinds, defaults, _ = of_notebook(job.notebook)
        if set(kinds) >= TRAINING:
            settings = defaults | job.parameters
            name = settings["dataset"]
            try:
                if datasets.find_dataset(name).layouts or name.startswith(datasets.FOLDER):
                    datasets.locate(name, settings["data_dir"])
            except (FileNotFoundError, ValueError) as error:
                kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
                raise kind(f"step {job.step!r}: {error}") from error


def notebook_defaults(notebook: Path) -> dict[str, Any]:
    """The values of a notebook's parameters where none are given."""
    return _declared(notebook)[1]


def _check(name: str, value: Any, kind: Any, least: int | None) -> None:
    if kind is None or isinstance(value, dict):
        return
    if kind is list:
        if not isinstance(value, list):
            raise ValueError(f"{name}={value!r}: must be a list")
    elif least is None:
        check_type(name, value, kind)
    else:
        check_value(name, value, kind, least)


def _declared(notebook: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
    """What a notebook says of its parameters: types, defaults, and the least whole numbers. Read
    from its code, none of which is run; None for a type or a default that is more than a name."""
    kinds: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    least: dict[str, int] = {}
    for cell in nbformat.read(notebook, 4).cells:
        is_parameters = "parameters" in cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not (is_parameters or ".begin(" in cell.source):
            continue
        for node in ast.walk(_parsed(cell.source)):
            if is_parameters and isinstance(node, ast.AnnAssign) and node.value:
                name, annotation = ast.unparse(node.target), ast.unparse(node.annotation)
                kinds[name] = list if annotation.startswith("list[") else KINDS.get(annotation)
                defaults[name] = _literal(node.value)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".begin"):
                least |= {word.arg: ast.literal_eval(word.value) for word in node.keywords}
    return kinds, defaults, least


def _parsed(code: str) -> ast.AST:
    """Nothing for what is more than Python, as `%magic` is."""
    try:
        return ast.parse(code)
    except SyntaxError:
        return ast.Module([], [])


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
