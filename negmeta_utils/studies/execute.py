"""One job of a study: a notebook executed by papermill in the job's folder.

The folder has a lock, held by the process that executes the job and, by inheritance, by its
kernel. So two studies at once do a job once, and where a process is killed the next one waits
until the kernel it left behind is gone too: kernels look every second whether their parent lives.
The system releases the lock with the last of its holders; no file has to be cleaned up.

Dask's workers import this module, once each: it loads no torch, which takes seconds and 500 MB.
"""

import asyncio
import fcntl
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import papermill
import psutil
from distributed import Worker, WorkerPlugin
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from negmeta_utils import __version__
from negmeta_utils.data import scratch
from negmeta_utils.storage import atomic
from negmeta_utils.studies import interruption, kernels
from negmeta_utils.studies.planning import Job, is_complete, results_in

LOCK = ".job.lock"
PROGRESS = ".progress"  # what the notebook last said of how far it is
# What is known of an execution that has not succeeded (yet): its start and, if it failed, why.
ATTEMPT = "attempt.json"
START_TIMEOUT = 600  # seconds for a kernel to start: on a busy machine a minute is too little
WRITTEN = (".csv", ".md", ".parquet", ".png", ".svg")  # by notebooks


@dataclass(frozen=True)
class Result:
    """How the execution of a job ended. state: "done", "skipped" (complete already),
    "failed" or "not_run" (after a failure); error: the last line of it."""

    state: str
    seconds: float = 0.0
    error: str = ""


class IgnoreSignals(WorkerPlugin):
    """Ctrl-C reaches every process of a terminal, and SIGTERM every one of a batch job; only the
    study's own acts on it, in order."""

    def setup(self, worker: Worker) -> None:
        interruption.ignore_in_workers()


def execute(job: Job, folder: Path) -> Result:
    """Execute `job` in `folder` unless it is complete there; waits for another process that does.

    An error of the notebook or its kernel is a result. Raises OSError where `folder` cannot be
    written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        if is_complete(job, folder):
            return Result("skipped")
        attempt = {
            "key": job.key,
            "wrote": _kept_from_before(job, folder),
            "started": atomic.now(),
            "host": platform.node(),
            "worker": os.getpid(),
        }
        atomic.write_json(folder / ATTEMPT, attempt)
        started = time.monotonic()
        (folder / PROGRESS).write_text("its kernel starts", encoding="utf-8")
        try:
            error = _papermill(job, folder, lock)
        finally:
            (folder / PROGRESS).unlink(missing_ok=True)
        seconds = round(time.monotonic() - started, 1)
        ended = {"wrote": _written(attempt, folder), "ended": atomic.now()}
        if error:
            # An interruption is no failure: the job is still to come.
            gone = error.startswith("KeyboardInterrupt") or "stopped after meta-update" in error
            why = {} if gone else {"error": error}
            atomic.write_json(folder / ATTEMPT, attempt | ended | why)
            return Result("failed", seconds, error)
        record = {
            "notebook": job.notebook.stem,
            "parameters": job.parameters,
            "needs": list(job.needs),
            "version": __version__,
            "seconds": seconds,
            "files": results_in(folder),
        }
        atomic.write_json(folder / "job.json", attempt | ended | record)
        (folder / ATTEMPT).unlink()
        return Result("done", seconds)


def _kept_from_before(job: Job, folder: Path) -> list[str]:
    """The tables, figures and answers that earlier attempts at this job left in `folder`.

    Deletes the record of a job that was complete here with other parameters or sources, and, but
    for a training, which goes on from them, what it or attempts at it wrote: not every table would
    be written again.
    """
    kept: list[str] = []
    for record in (folder / "job.json", folder / ATTEMPT):
        if not record.is_file():
            continue
        found = atomic.read_json(record)
        wrote = _written(found, folder)
        if found["key"] == job.key:
            kept += wrote
        elif not (folder / "manifest.json").exists():
            for name in wrote:
                (folder / name).unlink(missing_ok=True)
    (folder / "job.json").unlink(missing_ok=True)
    return sorted(set(kept))


def _written(record: dict, folder: Path) -> list[str]:
    """What an execution and those before it wrote, by its record; of one that has not ended, or was
    killed before it could say, all that is no older than its start."""
    wrote = set(record.get("wrote", ()))
    if "ended" not in record:
        # File systems may round to two seconds.
        since = datetime.fromisoformat(record["started"]).timestamp() - 2
        found = [path for path in folder.glob("[!.]*") if path.suffix in WRITTEN]
        wrote |= {path.name for path in found if path.stat().st_mtime >= since}
    return sorted(wrote)


def in_execution(folder: Path) -> bool:
    """Whether a process, or a kernel that outlived one, is at work in `folder`."""
    if not (folder / LOCK).exists():
        return False
    with (folder / LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no locks there: nothing tells
            return False
    return False


def interrupt_kernels(folders: list[Path]) -> None:
    """Interrupt the kernels below this process and wait, half a minute at most, until nobody is at
    work in `folders`: a training writes a checkpoint first."""
    for tenth in range(300):
        if not any(map(in_execution, folders)):
            return
        if tenth % 100 == 0:  # a kernel between two cells does not hear it
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if kernels.MODULE in process.cmdline():
                        process.send_signal(signal.SIGINT)
        time.sleep(0.1)


async def stop_kernels(keys: list[str], dask_worker: Worker) -> None:
    """The same on a dask worker that others started, if it executes one of these tasks."""
    if not any(task.key in keys for task in dask_worker.state.executing):
        return
    for _ in range(3):
        for kernel in psutil.Process().children():
            kernel.send_signal(signal.SIGINT)
        for _ in range(100):
            if not psutil.Process().children():
                return
            await asyncio.sleep(0.1)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """`folder` locked for this process and its children: the descriptor that they inherit."""
    with (folder / LOCK).open("w") as file:
        atomic.lock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _papermill(job: Job, folder: Path, lock: int) -> str:
    """The last line of the error, empty where there was none."""
    with scratch.temporary(for_sockets=True) as sockets:
        config = Config()
        # Kernels that start at once could pick the same TCP port; these addresses are unique.
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{sockets}/kernel"
        config.NotebookClient.kernel_manager_class = kernels.StudyKernelManager
        config.StudyKernelManager.lock = lock
        config.StudyKernelManager.progress = str((folder / PROGRESS).absolute())
        config.StudyKernelManager.profiles = f"{sockets}/ipython"
        try:
            papermill.execute_notebook(
                str(job.notebook),
                str(folder / job.notebook.name),
                parameters=job.parameters,
                kernel_name="python3",
                start_timeout=START_TIMEOUT,
                progress_bar=False,
                log_output=False,
                config=config,
            )
        except PapermillExecutionError as error:
            return f"{error.ename}: {error.evalue}"
        except Exception as error:  # a kernel that is missing, or died: the other jobs go on
            return " ".join(f"{type(error).__name__}: {error}".split())
    return ""
