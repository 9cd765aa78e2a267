"""A study as jobs, in order of dependence. `scheduling` runs them.

Each point of a grid is a job. It gets a folder of its own below the study's, as its parameter
`out_dir`, and leaves there what it makes, its executed notebook and `job.json`. A job is complete,
and skipped, when `job.json` says so for the same code, the same parameters and the same jobs before
it, wherever the folders and the data are. What a parameter names by a path counts by its content.
"""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat

from negmeta_utils.data.names import one_line
from negmeta_utils.networks import own_file
from negmeta_utils.parameters import BEST
from negmeta_utils.storage import atomic
from negmeta_utils.studies.study_file import as_list, references

PLAN = "plan.json"  # in a study's folder: its jobs, as of its last start
RESULTS = (".json", ".parquet", ".safetensors")
# What is known of executions of a job, in its folder: of one that has not succeeded (yet), and of
# one that has.
ATTEMPT, SUCCESS = "attempt.json", "job.json"
NO_RESULTS = (ATTEMPT, "checkpoint.safetensors")
FOLDERS = ("out_dir", "data_dir")  # parameters that say where, not what


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters.

    needs: names of the jobs whose folders it reads; key: digest of the notebook's code, the
    parameters, the content of what they name, and the keys of `needs`.
    """

    step: str
    name: str
    notebook: Path
    parameters: dict
    needs: tuple[str, ...]
    key: str


def plan(steps: dict[str, dict], out_dir: Path) -> list[Job]:
    """The jobs of a study, each after the jobs it reads from."""
    jobs: dict[str, Job] = {}
    content_of = functools.cache(_content)  # a data set is listed once, for all jobs
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
            needs, identity = [], {}
            for key, value in parameters.items():
                if references(value):
                    taken = [source for one in as_list(value) for source in _taken(one, jobs)]
                    _check_taken_once(taken, f"step {step_name!r}: {key}")
                    needs += [job.name for job, _ in taken if job]
                    identity[key] = [
                        job.name + rest if job else _identity(rest, content_of, in_list=True)
                        for job, rest in taken
                    ]
                    parameters[key] = [
                        str(out_dir / job.name) + rest if job else rest for job, rest in taken
                    ]
                elif key not in FOLDERS:
                    identity[key] = _identity(value, content_of)
            parameters["out_dir"] = str(out_dir / name)
            content = [step["notebook"], code, identity, [jobs[n].key for n in needs]]
            try:
                key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            except TypeError as error:  # YAML makes a date of what looks like one
                raise ValueError(f"step {step_name!r}: {error}; put it in quotes") from error
            jobs[name] = Job(step_name, name, notebook, parameters, tuple(needs), key)
    return list(jobs.values())


def _identity(value: Any, content_of: Callable, in_list: bool = False) -> Any:
    """A parameter's value, with the `_content` of what it names in place of a name."""
    if isinstance(value, list):
        return [_identity(one, content_of, in_list=True) for one in value]
    return content_of(value, in_list) or value if isinstance(value, str) else value


def _content(name: str, in_list: bool) -> list[str] | None:
    """What `name` names, by content and so wherever it lies: the images of folder:PATH, the network
    of FILE.py:CLASS and, in a list, a run or a folder of tables. None where it is the name of none
    of these, or of what is not there."""
    from negmeta_utils import runs  # torch takes seconds
    from negmeta_utils.data import datasets

    try:
        if in_list:
            return runs.content_of(name)
        if name.startswith(datasets.FOLDER):
            return [datasets.content_of(name)]
        path, attribute = own_file.split(name)
        return [own_file.digest(name), attribute] if path.suffix == ".py" else None
    except Exception:  # whatever is wrong with what is there, its job will say so
        return None


def write_plan(jobs: list[Job], out_dir: Path) -> None:
    """For `negmeta status`, which then needs no overrides to know what was asked for."""
    atomic.make_folder(out_dir)
    content = [asdict(job) | {"notebook": str(job.notebook)} for job in jobs]
    atomic.write_json(out_dir / PLAN, {"jobs": content})


def read_plan(out_dir: Path) -> list[Job]:
    """Raises FileNotFoundError where no study was started in `out_dir`."""
    if not (out_dir / PLAN).is_file():
        raise FileNotFoundError(
            f"{out_dir}: no study was started there (no {PLAN}); name its --out"
        )
    return [
        Job(**job | {"notebook": Path(job["notebook"]), "needs": tuple(job["needs"])})
        for job in atomic.read_json(out_dir / PLAN)["jobs"]
    ]


def is_complete(job: Job, folder: Path) -> bool:
    """Whether `folder` holds the finished results of exactly this job, none of them gone since."""
    if not (folder / SUCCESS).is_file():
        return False
    with one_line(folder / SUCCESS):
        record = atomic.read_json(folder / SUCCESS)
        there = all((folder / name).is_file() for name in record.get("files", []))
        return record["key"] == job.key and there


def results_in(folder: Path) -> list[str]:
    """What other jobs may read of one that has ended; its figures and checkpoint can go."""
    found = [path for path in folder.rglob("[!.]*") if path.suffix in RESULTS]
    names = [str(path.relative_to(folder)) for path in found]
    return sorted(name for name in names if name not in NO_RESULTS)


def _code(notebook: Path) -> list[str]:
    """The code cells of a notebook, without their outputs."""
    return [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


def _taken(value: object, jobs: dict[str, Job]) -> list[tuple[Job | None, Any]]:
    """The jobs that a `{from: STEP, ...}` means, each with what names the network of its run; a
    folder, or any other value, as it is, with no job."""
    if not isinstance(value, dict):
        return [(None, value)]
    return [(job, _network(value, job)) for job in _select(jobs.values(), value)]


def _check_taken_once(taken: list[tuple[Job | None, Any]], where: str) -> None:
    seen = set()
    for job, rest in taken:
        one = job.name if job else None, repr(rest)  # which may be a list
        if one in seen:
            what = job.name + rest if job else rest
            raise ValueError(f"{where}: {what} is taken twice; name it once")
        seen.add(one)


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
        raise ValueError(
            f"reference {reference}: step {reference['from']!r} has no such job; name what its "
            "parameters or its grid say, defaults too"
        )
    return chosen
