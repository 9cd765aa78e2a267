"""What keeps a folder of results whole: files written to the side, one process at a time, signals
that wait for a good moment."""

import errno
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from platformdirs import user_cache_path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Where is kept what can be made again: decoded data sets, compiled sources."""
    given = cache_dir or os.environ.get("NEGMETA_CACHE")
    return Path(given) if given else user_cache_path("negmeta")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; synced and renamed to `path` if all went well,
    removed if not. What a killed process left on its way to `path` is removed as well.

    Raises OSError, in one line with the path, where the disk is full.
    """
    beginning = f".{path.name}.{platform.node()}-"
    for left in path.parent.glob(f"{beginning}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(beginning))):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{beginning}{os.getpid()}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)  # or the machine could lose the new name in a crash of its own
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(f"{path}: cannot be written ({error.strerror}); make room there") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """`folder`, made where missing, for this process alone; free again when it ends, however.

    Raises BlockingIOError where another process has it, OSError where it cannot be written to.
    """
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"{folder}: in use by another process; wait for its end or choose another folder"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        # Still locked: who opened the file before this line finds it gone, and does not get it.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def make_folder(folder: Path) -> None:
    """Make `folder` where missing. Raises OSError, in one line, where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(f"{folder}: cannot be written to ({error.strerror}); choose another folder")


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in the list, for the caller to act on; the second of a kind
    does what it did before. The list stays empty outside the main thread."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    both = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in both}

    def note(number: int, frame: object) -> None:
        noted.append(number)
        signal.signal(number, before[number])

    try:
        for number in before:
            signal.signal(number, note)
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
