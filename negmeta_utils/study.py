"""A study: a grid of notebooks, executed by papermill in order of dependence.

A study file is YAML:

    steps:
      train:                          # a step: one notebook over a grid of parameters
        notebook: 01_train
        grid: {method: [maml, meta-sgd], seed: [0, 1]}
        parameters: {dataset: glyphs, n_updates: 400}
      alpha:
        notebook: 02_alpha_distribution
        parameters:
          runs: {from: train, method: meta-sgd}   # the folders of these jobs, as a list

Each point of a grid is a job. It gets a folder of its own below the study's, as its parameter
`out_dir`, and leaves there what it makes, its executed notebook and `job.json`. A job is complete,
and skipped, when `job.json` says so for the same notebook, the same parameters and the same jobs
before it.
"""

import hashlib
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from multiprocessing import get_context
from pathlib import Path

import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from negmeta_utils import runs

NOTEBOOKS = runs.ROOT / "notebooks"


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters.

    needs: names of the jobs whose folders it reads; key: digest of notebook, parameters and the
    keys of `needs`.
    """

    step: str
    name: str
    notebook: Path
    parameters: dict
    needs: tuple[str, ...]
    key: str


@dataclass
class Outcome:
    """How a study ended: names of the jobs done now, already complete, not run and failed, and the
    last line of each failed one's error."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def find_study(name: str) -> Path:
    """A study of this project by name, or any YAML file by path."""
    own = NOTEBOOKS / "studies" / f"{name}.yml"
    path = own if own.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in own.parent.glob("*.yml")))
        raise FileNotFoundError(f"study {name!r}: no such file; the studies here are {known}")
    return path


def read_study(path: Path, overrides: dict[str, object]) -> dict[str, dict]:
    """Steps of a study file with values overridden, in order of dependence.

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
        for parameter, values in step["grid"].items():
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
    return {name: steps[name] for name in _in_order(path, steps)}


def plan(steps: dict[str, dict], out_dir: Path) -> list[Job]:
    """The jobs of a study, each after the jobs it reads from."""
    jobs: dict[str, Job] = {}
    for step_name, step in steps.items():
        for values in itertools.product(*step["grid"].values()):
            name = "-".join([step_name, *(re.sub(r"[^\w.+-]+", "_", str(v)) for v in values)])
            if name in jobs:
                raise ValueError(
                    f"step {step_name!r}: two jobs would be called {name}; make the values of the "
                    "grid differ, or rename the step"
                )
            parameters = {**step["parameters"], **dict(zip(step["grid"], values, strict=True))}
            needs = []
            for key, value in parameters.items():
                if isinstance(value, dict):
                    sources = _select(jobs.values(), value)
                    needs += [job.name for job in sources]
                    parameters[key] = [str(out_dir / job.name) for job in sources]
            parameters["out_dir"] = str(out_dir / name)
            content = [step["notebook"], parameters, [jobs[n].key for n in needs]]
            try:
                key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            except TypeError as error:  # YAML makes a date of what looks like one
                raise ValueError(f"step {step_name!r}: {error}; put it in quotes") from error
            notebook = NOTEBOOKS / f"{step['notebook']}.ipynb"
            jobs[name] = Job(step_name, name, notebook, parameters, tuple(needs), key)
    return list(jobs.values())


def run_study(
    jobs: list[Job],
    out_dir: Path,
    workers: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Execute what is not yet complete. A job whose sources failed is not run; the others are.

    workers: how many notebooks run side by side, the cores divided among them.
    """
    outcome, waiting, running = Outcome(), list(jobs), {}
    threads = max(1, (os.cpu_count() or 1) // workers)

    def ended(job: Job, where: list[str], how: str) -> None:
        where.append(job.name)
        count = len(jobs) - len(waiting) - len(running)
        say(f"[{count:>{len(str(len(jobs)))}}/{len(jobs)}] {job.name}: {how}")

    # Processes, each with kernels of its own; spawned, because a fork would share torch's threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), _limit_threads, (threads,)) as pool:
        while waiting or running:
            for job in list(waiting):
                if lost := [n for n in job.needs if n in outcome.failed or n in outcome.not_run]:
                    waiting.remove(job)
                    ended(job, outcome.not_run, f"not run, since {lost[0]} failed")
                elif set(job.needs) <= {*outcome.done, *outcome.skipped}:
                    waiting.remove(job)
                    if is_complete(job, out_dir / job.name):
                        ended(job, outcome.skipped, "already complete")
                    else:
                        running[pool.submit(_execute, job, out_dir / job.name)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                seconds, error = future.result()
                if error is None:
                    ended(job, outcome.done, f"done in {seconds:.0f} s")
                else:
                    outcome.errors[job.name] = error
                    ended(job, outcome.failed, "FAILED")
    return outcome


def _limit_threads(threads: int) -> None:
    """For the kernels that this process starts: more threads than cores are slower than fewer."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def is_complete(job: Job, folder: Path) -> bool:
    """Whether `folder` holds the finished results of exactly this job."""
    record = folder / "job.json"
    return record.is_file() and runs.read_json(record)["key"] == job.key


def _execute(job: Job, folder: Path) -> tuple[float, str | None]:
    """Seconds taken, and the last line of the error if there was one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").unlink(missing_ok=True)
    started = time.monotonic()
    try:
        _papermill(job, folder)
    except PapermillExecutionError as error:
        return time.monotonic() - started, f"{error.ename}: {error.evalue}"
    except Exception as error:  # a kernel that is missing, or died: the other jobs go on
        return time.monotonic() - started, " ".join(f"{type(error).__name__}: {error}".split())
    seconds = time.monotonic() - started
    record = {
        "key": job.key,
        "notebook": job.notebook.stem,
        "parameters": job.parameters,
        "needs": list(job.needs),
        "seconds": round(seconds, 1),
    }
    runs.write_json(folder / "job.json", record)
    return seconds, None


def _papermill(job: Job, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="negmeta-") as sockets:
        config = Config()
        if os.name == "posix":
            # Kernels that start at once could pick the same TCP port; these addresses are unique.
            config.KernelManager.transport = "ipc"
            config.KernelManager.ip = f"{sockets}/kernel"
        papermill.execute_notebook(
            str(job.notebook),
            str(folder / job.notebook.name),
            parameters=job.parameters,
            kernel_name="python3",
            progress_bar=False,
            log_output=False,
            config=config,
        )


def _read_steps(path: Path) -> dict[str, dict]:
    """The steps as they stand in the file, each with a grid and parameters, if empty ones."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not YAML ({' '.join(str(error).split())}); correct it"
        ) from error
    steps = content.get("steps") if isinstance(content, dict) else None
    if not isinstance(steps, dict) or not steps:
        raise ValueError(f"{path}: not a study: it needs `steps:` and at least one step below")
    if unknown := set(content) - {"steps"}:
        raise ValueError(
            f"{path}: unknown key {min(unknown, key=str)!r} beside `steps:`; delete it"
        )
    for name, step in steps.items():
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
    notebook = NOTEBOOKS / f"{step.get('notebook')}.ipynb"
    if not notebook.is_file():
        known = ", ".join(sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
        raise ValueError(
            f"{path}: step {name!r}: no notebook {step.get('notebook')!r}; there are {known}"
        )
    return set(papermill.inspect_notebook(str(notebook)))


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
        name: [v.get("from") for v in step["parameters"].values() if isinstance(v, dict)]
        for name, step in steps.items()
    }
    for name, needed in sources.items():
        for source in needed:
            if source not in steps:
                raise ValueError(f"{path}: step {name!r}: no step {source!r} to take from")
    try:
        return list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise ValueError(f"{path}: steps need one another: {' -> '.join(error.args[1])}") from error


def _select(jobs: Iterable[Job], reference: dict) -> list[Job]:
    """The jobs that a `{from: STEP, NAME: VALUE}` means."""
    wanted = {name: value for name, value in reference.items() if name != "from"}
    chosen = [
        job
        for job in jobs
        if job.step == reference["from"]
        and all(job.parameters.get(name) == value for name, value in wanted.items())
    ]
    if not chosen:
        raise ValueError(f"reference {reference}: step {reference['from']!r} has no such job")
    return chosen
