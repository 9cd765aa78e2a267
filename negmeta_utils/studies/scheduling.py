"""The jobs of a study on a dask cluster: one on this machine, or one that exists.

Results travel through the jobs' folders, so all workers need the same file system; dask carries
a job's description one way and a line on how it ended the other. A worker that dies is replaced,
and its job given to another one, up to dask's `allowed-failures`.
"""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

from negmeta_utils import __version__
from negmeta_utils.engine.device import cores, resolve_device
from negmeta_utils.storage import atomic
from negmeta_utils.studies import interruption
from negmeta_utils.studies.execute import (
    IgnoreSignals,
    Result,
    execute,
    interrupt_kernels,
    stop_kernels,
)
from negmeta_utils.studies.planning import SUCCESS, Job, is_complete, write_plan

LOCAL = {  # settings of a cluster on this machine
    # On a busy machine a worker may need longer to come back than dask waits for it.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    # A machine that slept wakes with workers that were silent for hours, and they go on.
    "distributed.scheduler.worker-ttl": None,
    # Dask's profiler and heartbeats at their defaults cost 5 % of two cores.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "5s",
    "distributed.admin.system-monitor.interval": "10s",
    # No pages for other users of this machine.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Outcome:
    """How a study ended: names of the jobs done now, already complete, not run and failed, and the
    last line of each failed one's error."""

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, job: Job, result: Result) -> str:
        """Enter a job's result; how it ended in words."""
        getattr(self, result.state).append(job.name)
        if result.state == "failed":
            self.errors[job.name] = result.error
        words = {
            "done": f"done in {result.seconds:.0f} s",
            "skipped": "already complete",
            "not_run": f"not run, since {result.error} failed",
            "failed": "FAILED",
        }
        return words[result.state]


def run_study(
    jobs: list[Job],
    out_dir: Path,
    workers: int = 1,
    scheduler: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], None] = lambda: None,
) -> Outcome:
    """Execute what is not yet complete. A job whose sources failed is not run; the others are.

    workers: how many notebooks run side by side here, the cores divided among them; scheduler:
    the address of a dask scheduler, to use its workers instead; interrupted: called after
    KeyboardInterrupt, when the kernels have ended. Raises ValueError where a job asks for CUDA and
    there is none here, OSError where the scheduler does not answer or a folder cannot be written
    to.
    """
    outcome = Outcome()

    def ended(job: Job, result: Result) -> None:
        words = outcome.add(job, result)
        if result.state == "done":
            words += _first_figure(out_dir / job.name)
        elif result.state == "skipped":
            words += _by_another_version(out_dir / job.name)
        count = sum(map(len, (outcome.done, outcome.skipped, outcome.not_run, outcome.failed)))
        say(f"[{count:>{len(str(len(jobs)))}}/{len(jobs)}] {job.name}: {words}")

    waiting = [job for job in jobs if not is_complete(job, out_dir / job.name)]
    for job in filter(_wants_gpu, waiting if scheduler is None else []):
        resolve_device(job.parameters["device"])
    write_plan(jobs, out_dir)
    ahead = {job.name for job in waiting}
    for job in jobs:
        if job.name not in ahead:
            ended(job, Result("skipped"))
    if waiting:
        with _cluster(workers, scheduler) as client:
            if missing := _missing(client, waiting):
                say(f"waiting for {missing}")
            running: dict[Future, Job] = {}
            try:
                with interruption.raised_once():
                    _run(client, waiting, running, out_dir, outcome, ended)
            except KeyboardInterrupt:
                _stop(client, running, out_dir, scheduler)
                interrupted()
                raise
    return outcome


def _first_figure(folder: Path) -> str:
    """Where there is something to look at already; the job's other figures lie beside it."""
    figures = sorted(folder.glob("*.png"))
    return f"; {figures[0]}" if figures else ""


def _by_another_version(folder: Path) -> str:
    """Where another version of this package computed a job, which may have got other numbers."""
    version = atomic.read_json(folder / SUCCESS).get("version", __version__)
    return "" if version == __version__ else f", by version {version}; this is {__version__}"


def _run(
    client: Client,
    waiting: list[Job],
    running: dict[Future, Job],
    out_dir: Path,
    outcome: Outcome,
    ended: Callable[[Job, Result], None],
) -> None:
    completed = as_completed(loop=client.loop)

    def submit_what_can_run() -> None:
        for job in list(waiting):
            if lost := [n for n in job.needs if n in outcome.failed or n in outcome.not_run]:
                waiting.remove(job)
                ended(job, Result("not_run", error=lost[0]))
            elif all(n in outcome.done or n in outcome.skipped for n in job.needs):
                waiting.remove(job)
                future = _submit(client, job, out_dir)
                running[future] = job
                completed.add(future)

    submit_what_can_run()
    for future in completed:
        ended(running.pop(future), _result(future))
        submit_what_can_run()


def _stop(client: Client, running: dict[Future, Job], out_dir: Path, scheduler: str | None) -> None:
    client.cancel(list(running))
    if scheduler is None:
        interrupt_kernels([out_dir / job.name for job in running.values()])
    else:
        client.run(stop_kernels, [future.key for future in running])


def _submit(client: Client, job: Job, out_dir: Path) -> Future:
    # Not pure: a job that failed may be tried again by the next study on the same cluster.
    return client.submit(
        execute,
        job,
        out_dir / job.name,
        pure=False,
        resources={"GPU": 1} if _wants_gpu(job) else None,
    )


def _missing(client: Client, jobs: list[Job]) -> str:
    """The workers that these jobs need and that are not there yet, in words; empty for none."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        return "workers: none has joined the scheduler yet"
    if any(map(_wants_gpu, jobs)) and not any("GPU" in w["resources"] for w in workers):
        return "a worker with a GPU: start one with --resources GPU=1"
    return ""


def _wants_gpu(job: Job) -> bool:
    return str(job.parameters.get("device")).startswith("cuda")


def _result(future: Future) -> Result:
    try:
        return future.result()
    except KilledWorker:
        return Result("failed", error="KilledWorker: every worker that tried it died")
    except CancelledError as error:
        raise OSError("the dask scheduler was lost; start it and the study again") from error


@contextmanager
def _cluster(workers: int, scheduler: str | None) -> Iterator[Client]:
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise OSError(
                f"--scheduler {scheduler}: {error}; is `dask scheduler` running?"
            ) from error
        with client:
            yield client
        return
    with (
        dask.config.set(LOCAL),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,  # one kernel each
            env=_threads(workers),
            plugins=[IgnoreSignals()],
            memory_limit=0,  # a kernel's memory is not its worker's
            resources={"GPU": 1} if torch.cuda.is_available() else None,
            security=True,  # or other users of this machine could run code as this one
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _threads(workers: int) -> dict[str, str]:
    """The cores that this process may use, divided: more threads than cores are slower than fewer.
    A number that the user has set stays, since the last digits of a sum may depend on it."""
    share = str(max(1, cores() // workers))
    default = os.environ.get("OMP_NUM_THREADS", share)
    return {name: os.environ.get(name, default) for name in THREADS}
