"""One job of a study: a notebook executed by papermill in the job's folder.

The folder has a lock, held by the process that executes the job and, by inheritance, by its
kernel. So two studies at once do a job once, and where a process is killed the next one waits
until the kernel it left behind is gone too: kernels look every second whether their parent lives.
The system releases the lock with the last of its holders; no file has to be cleaned up.

Dask's workers import this module, once each: it loads no torch, which takes seconds and 500 MB.
"""

import asyncio
import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import papermill
import psutil
from distributed import Worker, WorkerPlugin
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from negmeta_utils import __version__
from negmeta_utils.data import scratch
from negmeta_utils.storage import atomic
from negmeta_utils.studies import attempts, interruption, kernels
from negmeta_utils.studies.planning import ATTEMPT, SUCCESS, Job, is_complete, results_in

LOCK = ".job.lock"
PROGRESS = ".progress"  # what the notebook last said of how far it is
START_TIMEOUT = 600  # seconds for a kernel to start: on a busy machine a minute is too little


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
        attempt = attempts.begin(job, folder)
        started = time.monotonic()
        (folder / PROGRESS).write_text("its kernel starts", encoding="utf-8")
        try:
            error = _papermill(job, folder, lock)
        finally:
            (folder / PROGRESS).unlink(missing_ok=True)
        seconds = round(time.monotonic() - started, 1)
        ended = attempts.ended(attempt, folder)
        if error:
            # An interruption is no failure: the job is still to come.
            gone = error.startswith("KeyboardInterrupt") or "stopped after meta-update" in error
            atomic.write_json(folder / ATTEMPT, ended if gone else ended | {"error": error})
            return Result("failed", seconds, error)
        record = {
            "notebook": job.notebook.stem,
            "parameters": job.parameters,
            "needs": list(job.needs),
            "version": __version__,
            "seconds": seconds,
            "files": results_in(folder),
        }
        atomic.write_json(folder / SUCCESS, ended | record)
        (folder / ATTEMPT).unlink()
        return Result("done", seconds)


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
