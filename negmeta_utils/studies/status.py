"""What of a study is done, running, failed and to come, read from its folder: it may be running in
another process, on other machines, or nowhere."""

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from negmeta_utils.storage import atomic
from negmeta_utils.studies.execute import in_execution
from negmeta_utils.studies.planning import ATTEMPT, SUCCESS, Job, is_complete, read_plan

STATES = ("done", "running", "failed", "to come")


@dataclass
class State:
    """Where a job is. word: one of `STATES`; detail: more of it, in words; seconds: how long it
    took, or has been running; left: seconds to its end, None where nothing tells."""

    job: Job
    word: str
    detail: str = ""
    seconds: float = 0.0
    left: float | None = None


def report(out_dir: Path) -> str:
    """A table of the jobs as of the study's last start in `out_dir`, and a line on what is left.

    Times are estimated from finished jobs of the same step and the same parameters but for seed
    and sources, and for a running training from its checkpoint; one without either says so.
    Raises FileNotFoundError where no study was started.
    """
    states = _states(out_dir)
    rows = [(state.job.name, state.word, _words(state)) for state in states]
    return f"{tabulate(rows, tablefmt='plain', disable_numparse=True)}\n\n{_summary(states)}"


def summary(out_dir: Path) -> str:
    """The last line of `report`: how many jobs are where, and what is left."""
    return _summary(_states(out_dir))


def _summary(states: list[State]) -> str:
    counts = [f"{sum(state.word == word for state in states)} {word}" for word in STATES]
    return f"{', '.join(counts)}; {_time_left(states)}"


def _states(out_dir: Path) -> list[State]:
    states = [_state(job, out_dir / job.name) for job in read_plan(out_dir)]
    _estimate(states)
    return states


def _state(job: Job, folder: Path) -> State:
    if is_complete(job, folder):
        return State(job, "done", seconds=atomic.read_json(folder / SUCCESS)["seconds"])
    try:
        attempt = atomic.read_json(folder / ATTEMPT)
    except FileNotFoundError:
        return State(job, "to come")
    if in_execution(folder):
        seconds = max(0.0, time.time() - datetime.fromisoformat(attempt["started"]).timestamp())
        update, left = _training(folder, seconds)
        return State(job, "running", f"on {attempt['host']}{update}", seconds, left)
    if attempt["key"] != job.key:
        return State(job, "to come")
    if "error" in attempt:
        return State(job, "failed", attempt["error"])
    return State(job, "to come", "stopped before its end")


def _training(folder: Path, running: float) -> tuple[str, float | None]:
    """How far the training in `folder` is, in words and in seconds left; running: for how long.
    Nothing and None where there is no training, or no checkpoint of it yet."""
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return "", None
    manifest = atomic.read_json(folder / "manifest.json")
    n_updates = manifest["parameters"]["n_updates"]
    from negmeta_utils.storage.files import read_tensors  # torch takes seconds

    _, saved = read_tensors(path)
    since = min(running, time.time() - path.stat().st_mtime)
    # By its pace since it went on, maybe on another machine; until a checkpoint there, by all.
    whole = {"update": 0, "seconds": 0.0}
    begun = whole | manifest.get("continued", [whole])[-1]
    if begun["update"] == saved["update"]:
        begun = whole
    seconds, updates = (saved[key] - begun[key] for key in ("seconds", "update"))
    left = (n_updates - saved["update"]) * seconds / updates - since
    return f", meta-update {saved['update']} of {n_updates}", max(0.0, left)


def _estimate(states: list[State]) -> None:
    """Fill in what is left of jobs from how long others like them take."""
    times = defaultdict(list)
    for state in states:
        if state.word == "done":
            times[_work(state.job)].append(state.seconds)
    for state in states:
        if state.word == "running" and state.left is None and _work(state.job) in times:
            state.left = max(0.0, mean(times[_work(state.job)]) - state.seconds)
    for state in states:
        if state.word == "running" and state.left is not None:
            times[_work(state.job)].append(state.seconds + state.left)
    for state in states:
        if state.word in ("failed", "to come") and _work(state.job) in times:
            state.left = mean(times[_work(state.job)])


def _work(job: Job) -> str:
    """Jobs of one step that agree in this take about as long."""
    parameters = {
        name: len(value) if isinstance(value, list) else value
        for name, value in job.parameters.items()
        if name not in ("seed", "out_dir")
    }
    return json.dumps([job.step, parameters], sort_keys=True)


def _words(state: State) -> str:
    if state.word == "done":
        return f"in {_duration(state.seconds)}"
    if state.word == "running":
        left = "time left unknown" if state.left is None else f"about {_duration(state.left)} left"
        return f"for {_duration(state.seconds)} {state.detail}, {left}"
    return state.detail


def _time_left(states: list[State]) -> str:
    """Of what is not done, failed jobs included: starting the study again starts them too."""
    ahead = [state for state in states if state.word != "done"]
    if not ahead:
        return "complete"
    known = [state.left for state in ahead if state.left is not None]
    running = sum(state.word == "running" for state in states)
    pace = f"with {running} at once" if running else "one by one, but none is running"
    if not known:
        return f"time left unknown ({pace})"
    seconds = max(max(known), sum(known) / max(1, running))
    unknown = len(ahead) - len(known)
    others = f"; {unknown} more cannot be estimated yet" if unknown else ""
    return f"about {_duration(seconds)} left {pace}{others}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
