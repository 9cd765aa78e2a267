"""A study as it is written: its file found, read and overridden, and refused where it cannot be.

A study file is YAML:

    steps:
      train:                          # a step: one notebook over a grid of parameters
        notebook: 01_train
        grid: {method: [maml, meta-sgd], seed: [0, 1]}
        parameters: {dataset: glyphs, n_updates: 400}
      alpha:
        notebook: 02_alpha_distribution
        parameters:
          runs: {from: train, method: meta-sgd}   # the folders of these jobs, as a list;
                                                  # or [{from: one}, {from: another}, /a/run];
                                                  # {from: train, at: best}: the network that
                                                  # each training kept there, or `at: 20000`
"""

import copy
import math
import re
import shutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from negmeta_utils.data.names import nearest
from negmeta_utils.storage import atomic, strict_yaml

NOTEBOOKS = (Path(__file__).parents[1] / "notebooks").resolve()
STEP_NAME = r"\w[\w+-]*"  # a part of its jobs' folders' names
MOST_JOBS = 10_000  # of a step


def find_study(name: str) -> Path:
    """A study by name, of the notebooks in the working directory before those of the package, or
    any YAML file by path, with or without its suffix."""
    folders = [folder / "studies" for folder in (Path("notebooks").absolute(), NOTEBOOKS)]
    for path in (*(folder / f"{name}.yml" for folder in folders), Path(name), Path(f"{name}.yml")):
        if path.is_file():
            return path
    known = ", ".join(sorted({p.stem for folder in folders for p in folder.glob("*.yml")}))
    raise FileNotFoundError(f"study {name!r}: no such file; the studies here are {known}")


def notebooks_of(study: Path) -> Path:
    """The folder of a study's notebooks: the one above the study's where that holds notebooks, as
    `lay_out` arranges them, else the package's."""
    folder = study.absolute().parent
    above = folder.parent
    return above if folder.name == "studies" and any(above.glob("*.ipynb")) else NOTEBOOKS


def lay_out(folder: Path) -> Path:
    """Copy the package's notebooks and studies to `folder`/notebooks, for reading and changing.

    Raises FileExistsError where that is there already.
    """
    target = folder / "notebooks"
    if target.exists():
        raise FileExistsError(f"{target}: is there already; choose another folder, or move it away")
    atomic.make_folder(folder)
    with atomic.temporary_folder(folder) as temporary:
        whole = temporary / "notebooks"
        shutil.copytree(NOTEBOOKS, whole, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        whole.rename(target)
    return target


def read_study(path: Path, overrides: dict[str, object]) -> dict[str, dict]:
    """Steps of a study file with values overridden, in order of dependence; each with the `path`
    of its notebook.

    overrides: "STEP.NAME" or, for every step whose notebook has that parameter, "NAME" -> value.
    A list for a name of the grid replaces its values. Raises ValueError for whatever the file, or
    a notebook, does not have; nothing has run by then.
    """
    steps = _read_steps(path)
    known = {}
    for name, step in steps.items():
        known[name] = _notebook_parameters(path, name, step)
    for target, value in overrides.items():
        _override(steps, known, target, value)
    for name, step in steps.items():
        if math.prod(len(v) for v in step["grid"].values() if isinstance(v, list)) > MOST_JOBS:
            raise ValueError(
                f"{path}: step {name!r}: more than {MOST_JOBS} jobs; shorten a list of its grid"
            )
        for parameter, values in step["grid"].items():
            if any(map(references, as_list(values))):
                raise ValueError(
                    f"{path}: step {name!r}: grid: {parameter}: no place for {{from: STEP}}; move "
                    "it to parameters"
                )
            if not isinstance(values, list) or not values:
                raise ValueError(
                    f"{path}: step {name!r}: grid: {parameter}: {values!r} is no list of values; "
                    "write it as [1, 2], or move it to parameters"
                )
        for parameter in [*step["grid"], *step["parameters"]]:
            if parameter not in known[name]:
                raise ValueError(
                    f"{path}: step {name!r}: {step['notebook']} has no parameter {parameter!r}"
                    f"{nearest(parameter, known[name])}; it has {', '.join(sorted(known[name]))}"
                )
            if parameter == "out_dir":
                raise ValueError(
                    f"{path}: step {name!r}: out_dir is each job's own folder; delete it, and say "
                    "--out for the study's"
                )
    ordered = {name: steps[name] for name in _in_order(path, steps)}
    for name, step in steps.items():
        for reference in _references_of(step):
            source = reference["from"]
            if unknown := set(reference) - {"from", "at"} - known[source]:
                raise ValueError(
                    f"{path}: step {name!r}: {reference}: {steps[source]['notebook']} has no "
                    f"parameter {min(unknown, key=str)!r} to choose by; correct its name"
                )
    return ordered


def _read_steps(path: Path) -> dict[str, dict]:
    """The steps as they stand in the file, each with a grid and parameters, if empty ones."""
    try:
        content = strict_yaml.read(path)
    except ValueError as error:
        raise ValueError(f"{path}: not YAML, or not a study ({error}); correct it") from error
    content = content if isinstance(content, dict) else {}
    steps = content.get("steps")
    if not isinstance(steps, dict) or not steps:
        raise ValueError(f"{path}: not a study: it needs `steps:` and at least one step below")
    if unknown := set(content) - {"steps"}:
        raise ValueError(
            f"{path}: unknown key {min(unknown, key=str)!r} beside `steps:`; delete it"
        )
    steps = {name: copy.deepcopy(step) for name, step in steps.items()}  # aliases share theirs
    for name, step in steps.items():
        if not isinstance(name, str) or not re.fullmatch(STEP_NAME, name):
            raise ValueError(
                f"{path}: step {name!r}: its jobs' folders are called after it; name it with "
                "letters, digits, - and _"
            )
        if not isinstance(step, dict):
            raise ValueError(f"{path}: step {name!r}: it needs `notebook:`, but is {step!r}")
        if unknown := set(step) - {"notebook", "grid", "parameters"}:
            raise ValueError(
                f"{path}: step {name!r}: unknown key {min(unknown, key=str)!r}; a step has "
                "notebook, grid and parameters"
            )
        for part in ("grid", "parameters"):
            if not isinstance(step.setdefault(part, {}), dict):
                raise ValueError(
                    f"{path}: step {name!r}: {part}: {step[part]!r}: must be names with values"
                )
    return steps


def _notebook_parameters(path: Path, name: str, step: dict) -> set[str]:
    import papermill  # takes a second

    folder = notebooks_of(path)
    notebooks = {p.stem: p for p in sorted(folder.glob("*.ipynb"))}
    if str(step.get("notebook")) not in notebooks:
        known = ", ".join(notebooks)
        raise ValueError(
            f"{path}: step {name!r}: no notebook {step.get('notebook')!r}; there are {known}"
        )
    step["path"] = notebooks[str(step["notebook"])]
    return set(papermill.inspect_notebook(str(step["path"])))


def _override(
    steps: dict[str, dict], known: dict[str, set[str]], target: str, value: object
) -> None:
    step_name, _, parameter = target.rpartition(".")
    chosen = [step_name] if step_name else [n for n in steps if parameter in known[n]]
    if not chosen or not set(chosen) <= set(steps):
        raise ValueError(
            f"--set {target}: no such step or parameter; the steps are {', '.join(steps)}"
        )
    for name in chosen:
        if parameter not in known[name]:
            raise ValueError(
                f"--set {target}: {steps[name]['notebook']} has no parameter {parameter!r}"
                f"{nearest(parameter, known[name])}; it has {', '.join(sorted(known[name]))}"
            )
        if isinstance(value, list) and parameter in steps[name]["grid"]:
            steps[name]["grid"][parameter] = value
        else:
            steps[name]["grid"].pop(parameter, None)
            steps[name]["parameters"][parameter] = value


def _in_order(path: Path, steps: dict[str, dict]) -> list[str]:
    sources: dict[str, list[Any]] = {
        name: [reference.get("from") for reference in _references_of(step)]
        for name, step in steps.items()
    }
    for name, step in steps.items():
        for parameter, value in step["parameters"].items():
            if any(isinstance(one, list) and _holds_dict(one) for one in as_list(value)):
                raise ValueError(
                    f"{path}: step {name!r}: {parameter}: {{from: STEP}} in a list within a list; "
                    "write one list"
                )
    for name, needed in sources.items():
        for source in needed:
            if not isinstance(source, str) or source not in steps:
                raise ValueError(f"{path}: step {name!r}: no step {source!r} to take from")
    try:
        return list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise ValueError(f"{path}: steps need one another: {' -> '.join(error.args[1])}") from error


def references(value: object) -> list[dict]:
    """The `{from: STEP, ...}` that a parameter's value is, or that are in its list."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def _references_of(step: dict) -> list[dict]:
    return [one for value in step["parameters"].values() for one in references(value)]


def _holds_dict(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_dict, value))
    return isinstance(value, dict)


def as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]
