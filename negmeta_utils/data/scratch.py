"""Temporary folders that are removed even if their process is killed.

Each holds a lock file, which the system releases when the process ends in any way. The next process
that works in the same place removes the folders whose locks are free.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = ".work-"
LOCK = ".lock"
YOUNG = 3600  # seconds; without a lock, a folder younger than that may be about to get one
ELSEWHERE = "make room or grant write permission, or set NEGMETA_CACHE to another folder"
NO_LOCKS = (OSError, NotImplementedError)  # of a file system that knows none


@contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """An empty folder somewhere below `parent`, removed in the end, and so is `parent` if it was
    made for this and stays empty. Raises OSError where it cannot be made."""
    with ExitStack() as stack:
        try:
            stack.enter_context(made(parent))
            clear(parent)
            path, lock = _owned(parent)
            (path / "content").mkdir()
        except OSError as error:
            said = error.strerror or error
            raise OSError(f"{parent}: cannot be written to ({said}); {ELSEWHERE}") from error
        try:
            yield path / "content"
        finally:
            shutil.rmtree(path, ignore_errors=True)
            _let_go(lock)


def _owned(parent: Path) -> tuple[Path, FileLock]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # another process removes it
            continue
        except NO_LOCKS:
            pass
        return path, lock


def clear(parent: Path) -> None:
    """Remove what killed processes left in `parent`."""
    for left in parent.glob(f"{PREFIX}*"):
        lock = FileLock(left / LOCK)
        try:
            if not (left / LOCK).exists() and time.time() - left.stat().st_mtime < YOUNG:
                continue
            lock.acquire(blocking=False)
        except (Timeout, *NO_LOCKS):
            continue
        shutil.rmtree(left, ignore_errors=True)
        _let_go(lock)


def _let_go(lock: FileLock) -> None:
    with suppress(*NO_LOCKS):  # its file is gone
        lock.release()


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, and then removed again if nothing is left in it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
