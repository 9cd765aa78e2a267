"""What keeps a folder of results whole: atomic writes, a digest in every file, one process at a
time, deferred SIGINT and SIGTERM. `files` writes tables and tensors by it; nothing here loads torch
or pandas, so that a process that only starts or watches notebooks need not."""

import errno
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from negmeta_utils.storage import digests

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
TEMPORARY = ".negmeta-"  # how the names of temporary folders begin
LOCK = ".lock"
_held: dict[Path, IO] = {}  # folders of this process alone, with their locks


def now() -> str:
    """The time of day in UTC, as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, removed in the end.

    Those that killed processes left are removed first, but not while another process has one,
    which it shows by a shared lock on `folder`. On a file system without `flock` they stay.
    """
    holder = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # another process has one, or there is no flock
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in folder.glob(f"{TEMPORARY}*"):
                shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(holder, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder) as made:
            yield Path(made)
    finally:
        os.close(holder)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; synced and renamed to `path` if all went well, removed if not.

    Raises OSError, in one line with the path, where the disk is full, where nothing can be written,
    and where `path` is in a folder of `sole_user` that was moved away.
    """
    try:
        with temporary_folder(path.parent) as folder:
            temporary = folder / path.name
            temporary.touch()
            readable_by = temporary.stat().st_mode
            yield temporary
            temporary.chmod(readable_by)  # safetensors makes files for their owner alone
            _sync(temporary)
            _check_in_place(path)
            os.replace(temporary, path)
            _sync(path.parent)  # or the machine could lose the new name in a crash of its own
    except OSError as error:
        if error.errno in FULL:
            advice = "make room there"
        elif error.errno in REFUSED and str(error.filename).startswith(str(path.parent)):
            advice = "choose another folder"
        else:
            raise
        raise OSError(f"{path}: cannot be written ({error.strerror}); {advice}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """`folder`, made where missing, for this process alone; free again when it ends, however.

    Its lock file, `folder`/.lock, is never deleted: else two processes could each lock one.
    Warns where the file system has no locks. Raises BlockingIOError where another process has the
    folder, OSError where it cannot be written to.
    """
    make_folder(folder)
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with file:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"{folder}: in use by another process; wait for its end or choose another folder"
            ) from None
        before = _held.get(folder)  # of a folder of that name that was moved away
        _held[folder] = file
        try:
            yield
        finally:
            del _held[folder]
            if before:
                _held[folder] = before


def lock(file: IO, how: int) -> None:
    """`fcntl.flock`, with a warning in place of an error where the file system has no locks."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        warnings.warn(
            f"{Path(file.name).parent}: no locks on this file system ({error.strerror}); see to it "
            "that nothing else uses this folder at the same time",
            stacklevel=3,
        )


def _check_in_place(path: Path) -> None:
    """Raise OSError where `path` is in a folder of `sole_user` that is now another one."""
    for folder in path.parents:
        if folder in _held and not is_open(folder / LOCK, _held[folder]):
            raise OSError(
                f"{folder}: moved or deleted while in use, and nothing more was written there; "
                "begin again where it is now"
            )


def is_open(path: Path, file: IO) -> bool:
    """Whether `path` is still the open `file`, and not another one of that name."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


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
    """SIGINT and SIGTERM only enter the list, for the caller to act on; a second one of a kind does
    what it did before. The list stays empty outside the main thread."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    both = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) or signal.SIG_DFL for number in both}

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


def write_json(path: Path, content: dict) -> None:
    """Write `content` and its digest to `path`. Raises OSError as `replacing`."""
    with replacing(path) as temporary:
        whole = {digests.KEY: digests.EMPTY, **content}
        temporary.write_text(json.dumps(whole, indent=2) + "\n")
        digests.seal(temporary)


def read_json(path: Path) -> dict:
    """What `write_json` wrote. Raises FileNotFoundError, and ValueError for any other file."""
    digests.check(path)
    content = parsed(path.read_bytes(), path)
    del content[digests.KEY]
    return content


def parsed(text: str | bytes, path: Path) -> dict:
    """The object in `text`, as `write_json` wrote it to `path`. Raises ValueError for any other."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); {digests.AGAIN}") from error
    if not isinstance(content, dict) or digests.KEY not in content:
        raise ValueError(f"{path}: not a JSON object of this package; {digests.AGAIN}")
    return content
