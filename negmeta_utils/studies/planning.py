"""A study: a grid of notebooks, in order of dependence. `scheduling` runs one.

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

Each point of a grid is a job. It gets a folder of its own below the study's, as its parameter
`out_dir`, and leaves there what it makes, its executed notebook and `job.json`. A job is complete,
and skipped, when `job.json` says so for the same code, the same parameters and the same jobs before
it, wherever the folders and the data are.
"""

import copy
import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nbformat
import papermill

from negmeta_utils import storage, strict_yaml
from negmeta_utils.runs import BEST

PLAN = "plan.json"  # in a study's folder: its jobs, as of its last start
NOTEBOOKS = (Path(__file__).parents[1] / "notebooks").resolve()
STEP_NAME = r"\w[\w+-]*"  # a part of its jobs' folders' names
MOST_JOBS = 10_000  # of a step
RESULTS = (".json", ".parquet", ".safetensors")
NO_RESULTS = ("attempt.json", "checkpoint.safetensors")
FOLDERS = ("out_dir", "data_dir")  # parameters that say where, not what


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters.

    needs: names of the jobs whose folders it reads; key: digest of the notebook's code, the
    parameters and the keys of `needs`.
    """

    step: str
    name: str
    notebook: Path
    parameters: dict
    needs: tuple[str, ...]
    key: str


def find_study(name: str) -> Path:
    """A study by name, of the notebooks in the working directory before those of the package, or
    any YAML file by path."""
    folders = [folder / "studies" for folder in (Path("notebooks").absolute(), NOTEBOOKS)]
    for path in (*(folder / f"{name}.yml" for folder in folders), Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted({p.stem for folder in folders for p in folder.glob("*.yml")}))
    raise FileNotFoundError(f"study {name!r}: no such file; the studies here are {known}")


def notebooks_of(study: Path) -> Path:
    """The folder of a study's notebooks: the one above the study's where that holds notebooks, as
    `lay_out` arranges them, else the package's."""
    above = study.absolute().parent.parent
    return above if study.parent.name == "studies" and any(above.glob("*.ipynb")) else NOTEBOOKS


def lay_out(folder: Path) -> Path:
    """Copy the package's notebooks and studies to `folder`/notebooks, for reading and changing.

    Raises FileExistsError where that is there already.
    """
    target = folder / "notebooks"
    if target.exists():
        raise FileExistsError(f"{target}: is there already; choose another folder, or move it away")
    storage.make_folder(folder)
    with storage.temporary_folder(folder) as temporary:
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
            if any(map(_references, _as_list(values))):
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
                    f"{path}: step {name!r}: {step['notebook']} has no parameter {parameter!r}; "
                    f"it has {', '.join(sorted(known[name]))}"
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


def plan(steps: dict[str, dict], out_dir: Path) -> list[Job]:
    """The jobs of a study, each after the jobs it reads from."""
    jobs: dict[str, Job] = {}
    for step_name, step in steps.items():
        notebook = step["path"]
        code = _code(notebook)
        for values in itertools.product(*step["grid"].values()):
            name = "-".join([step_name, *(re.sub(r"[^\w.+-]+", "_", str(v)) for v in values)])
            if name in jobs:
                raise ValueError(
                    f"step {step_name!r}: two jobs would be called {name}; make the values of the "
                    "grid differ, or rename the step"
                )
            parameters = {**step["parameters"], **dict(zip(step["grid"], values, strict=True))}
            needs, identity = [], {k: v for k, v in parameters.items() if k not in FOLDERS}
            for key, value in parameters.items():
                if _references(value):
                    taken = [source for one in _as_list(value) for source in _taken(one, jobs)]
                    for source in taken:
                        if taken.count(source) > 1:
                            what = source[0].name + source[1] if source[0] else source[1]
                            raise ValueError(
                                f"step {step_name!r}: {key}: {what} is taken twice; name it once"
                            )
                    needs += [job.name for job, _ in taken if job]
                    identity[key] = [job.name + rest if job else rest for job, rest in taken]
                    parameters[key] = [
                        str(out_dir / job.name) + rest if job else rest for job, rest in taken
                    ]
            parameters["out_dir"] = str(out_dir / name)
            content = [step["notebook"], code, identity, [jobs[n].key for n in needs]]
            try:
                key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            except TypeError as error:  # YAML makes a date of what looks like one
                raise ValueError(f"step {step_name!r}: {error}; put it in quotes") from error
            jobs[name] = Job(step_name, name, notebook, parameters, tuple(needs), key)
    return list(jobs.values())


def write_plan(jobs: list[Job], out_dir: Path) -> None:
    """For `negmeta status`, which then needs no overrides to know what was asked for."""
    storage.make_folder(out_dir)
    content = [asdict(job) | {"notebook": str(job.notebook)} for job in jobs]
    storage.write_json(out_dir / PLAN, {"jobs": content})


def read_plan(out_dir: Path) -> list[Job]:
    """Raises FileNotFoundError where no study was started in `out_dir`."""
    if not (out_dir / PLAN).is_file():
        raise FileNotFoundError(
            f"{out_dir}: no study was started there (no {PLAN}); name its --out"
        )
    return [
        Job(**job | {"notebook": Path(job["notebook"]), "needs": tuple(job["needs"])})
        for job in storage.read_json(out_dir / PLAN)["jobs"]
    ]


def is_complete(job: Job, folder: Path) -> bool:
    """Whether `folder` holds the finished results of exactly this job, none of them gone since."""
    if not (folder / "job.json").is_file():
        return False
    record = storage.read_json(folder / "job.json")
    there = all((folder / name).is_file() for name in record.get("files", []))
    return record["key"] == job.key and there


def results_in(folder: Path) -> list[str]:
    """What other jobs may read of one that has ended; its figures and checkpoint can go."""
    found = [path for path in folder.rglob("[!.]*") if path.suffix in RESULTS]
    names = [str(path.relative_to(folder)) for path in found]
    return sorted(name for name in names if name not in NO_RESULTS)


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
    folder = notebooks_of(path)
    notebooks = {p.stem: p for p in sorted(folder.glob("*.ipynb"))}
    if str(step.get("notebook")) not in notebooks:
        known = ", ".join(notebooks)
        raise ValueError(
            f"{path}: step {name!r}: no notebook {step.get('notebook')!r}; there are {known}"
        )
    step["path"] = notebooks[str(step["notebook"])]
    return set(papermill.inspect_notebook(str(step["path"])))


def _code(notebook: Path) -> list[str]:
    """The code cells of a notebook, without their outputs."""
    return [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


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
                f"--set {target}: {steps[name]['notebook']} has no parameter {parameter!r}; it "
                f"has {', '.join(sorted(known[name]))}"
            )
        if isinstance(value, list) and parameter in steps[name]["grid"]:
            steps[name]["grid"][parameter] = value
        else:
            steps[name]["grid"].pop(parameter, None)
            steps[name]["parameters"][parameter] = value


def _in_order(path: Path, steps: dict[str, dict]) -> list[str]:
    sources = {
        name: [reference.get("from") for reference in _references_of(step)]
        for name, step in steps.items()
    }
    for name, step in steps.items():
        for parameter, value in step["parameters"].items():
            if any(isinstance(one, list) and _holds_dict(one) for one in _as_list(value)):
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


def _references(value: object) -> list[dict]:
    """The `{from: STEP, ...}` that a parameter's value is, or that are in its list."""
    return [one for one in _as_list(value) if isinstance(one, dict)]


def _references_of(step: dict) -> list[dict]:
    return [one for value in step["parameters"].values() for one in _references(value)]


def _holds_dict(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_dict, value))
    return isinstance(value, dict)


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def _taken(value: object, jobs: dict[str, Job]) -> list[tuple[Job | None, Any]]:
    """The jobs that a `{from: STEP, ...}` means, each with what names the network of its run; a
    folder, or any other value, as it is, with no job."""
    if not isinstance(value, dict):
        return [(None, value)]
    return [(job, _network(value, job)) for job in _select(jobs.values(), value)]


def _network(reference: dict, job: Job) -> str:
    """What stands behind a run's folder for the network that `at:` asks for."""
    if "at" not in reference:
        return ""
    known = [BEST, *job.parameters.get("keep_at", [])]
    if reference["at"] not in known:
        raise ValueError(
            f"reference {reference}: at: {job.name} keeps {', '.join(map(str, known))}; choose "
            "one of these, or add to keep_at"
        )
    return f"@{reference['at']}"


def _select(jobs: Iterable[Job], reference: dict) -> list[Job]:
    """The jobs that a `{from: STEP, NAME: VALUE}` means."""
    wanted = {name: value for name, value in reference.items() if name not in ("from", "at")}
    chosen = [
        job
        for job in jobs
        if job.step == reference["from"]
        and all(job.parameters.get(name) == value for name, value in wanted.items())
    ]
    if not chosen:
        raise ValueError(f"reference {reference}: step {reference['from']!r} has no such job")
    return chosen
