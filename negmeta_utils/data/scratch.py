"""Temporary folders that are removed even if their process is killed.

Each holds a lock file, which the system releases when the process ends in any way. The next process
that works in the same place removes the folders whose locks are free.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = ".work-"
IN_TEMPORARY = "negmeta-work-"  # in place of it in the system's folder, which others use too
LOCK = ".lock"
YOUNG = 3600  # seconds; without a lock, a folder younger than that may be about to get one
ELSEWHERE = "make room or grant write permission, or set {} to another folder"
NO_LOCKS = (OSError, NotImplementedError)  # of a file system that knows none


@contextmanager
def temporary() -> Iterator[Path]:
    """An empty folder in the system's folder for such, removed in the end. Raises OSError."""
    with folder(Path(tempfile.gettempdir()), IN_TEMPORARY, "TMPDIR") as made:
        yield made


@contextmanager
def folder(parent: Path, prefix: str = PREFIX, variable: str = "NEGMETA_CACHE") -> Iterator[Path]:
    """An empty folder somewhere below `parent`, removed in the end, and so is `parent` if it was
    made for this and stays empty. Raises OSError, which names the variable that says where else,
    where it cannot be made."""
    with ExitStack() as stack:
        try:
            stack.enter_context(made(parent))
            clear(parent, prefix)
            path, lock = _owned(parent, prefix)
            (path / "content").mkdir()
        except OSError as error:
            said = error.strerror or error
            raise OSError(
                f"{parent}: cannot be written to ({said}); {ELSEWHERE.format(variable)}"
            ) from error
        try:
            yield path / "content"
        finally:
            shutil.rmtree(path, ignore_errors=True)
            _let_go(lock)


def _owned(parent: Path, prefix: str) -> tuple[Path, FileLock]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = FileLock(path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # another process removes it
            continue
        except NO_LOCKS:
            pass
        return path, lock


def clear(parent: Path, prefix: str = PREFIX) -> None:
    """Remove what this user's killed processes left in `parent`."""
    for left in parent.glob(f"{prefix}*"):
        lock = FileLock(left / LOCK)
        try:
            if left.lstat().st_uid != os.getuid():
                continue
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
