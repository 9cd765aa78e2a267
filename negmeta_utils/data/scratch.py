"""Temporary folders that are removed even if their process is killed.

Each holds a lock file, which the system releases when the process ends in any way. The next process
that works in the same place removes the folders whose locks are free.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from negmeta_utils.storage import atomic

PREFIX = ".work-"
IN_TEMPORARY = "negmeta-work-"  # instead of PREFIX in the system's folder, which others use too
LOCK = ".lock"
LONGEST = 60  # bytes; with some 40 more the address of a socket is at most 104 of them
YOUNG = 3600  # seconds; without a lock, a folder younger than that may be about to get one
ELSEWHERE = "make room or grant write permission, or set {} to another folder"
ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def temporary(for_sockets: bool = False) -> Iterator[Path]:
    """An empty folder in the system's temporary folder, removed in the end. Raises OSError.

    for_sockets: in /tmp where that folder's name is too long for the address of a socket in it.
    """
    parent = tempfile.gettempdir()
    if for_sockets and len(os.fsencode(parent)) > LONGEST:
        parent = "/tmp"
    with folder(Path(parent), IN_TEMPORARY, "TMPDIR") as made:
        yield made


@contextmanager
def folder(parent: Path, prefix: str = PREFIX, variable: str = "NEGMETA_CACHE") -> Iterator[Path]:
    """An empty folder somewhere below `parent`, removed in the end, and so is `parent` if it was
    made for this and stays empty. Raises OSError where it cannot be made, with the advice to name
    another place by the environment variable `variable`."""
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
        with lock:
            try:
                yield path / "content"
            finally:
                shutil.rmtree(path, ignore_errors=True)


def _owned(parent: Path, prefix: str) -> tuple[Path, IO]:
    """A new folder, and its lock file, open."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = (path / LOCK).open("w")
        try:
            fcntl.flock(lock, ALONE)
        except BlockingIOError:
            pass
        except OSError:  # no locks on this file system
            return path, lock
        else:
            if atomic.is_open(path / LOCK, lock):
                return path, lock
        lock.close()  # another process removed it, or is about to


def clear(parent: Path, prefix: str = PREFIX) -> None:
    """Remove what this user's killed processes left in `parent`."""
    for left in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # it is in use, gone meanwhile, or there are no locks
            found = left.lstat()
            is_young = time.time() - found.st_mtime < YOUNG
            if found.st_uid != os.getuid() or (is_young and not (left / LOCK).exists()):
                continue
            with (left / LOCK).open("a") as lock:
                fcntl.flock(lock, ALONE)
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make `folder` where it is missing, and then remove it again if nothing is left in it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
