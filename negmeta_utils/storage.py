"""What keeps a folder of results whole: files written to the side, one process at a time, signals
that wait for a good moment."""

import errno
import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pyarrow
import torch
from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

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


def write_json(path: Path, content: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Raises ValueError where `path` is not a JSON object."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete the run and start again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object; delete the run and start again")
    return content


def write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """Raises FileNotFoundError, or ValueError where `path` is no Parquet file or is cut short."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table; name a folder that holds one")
    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a table ({error}); delete it and make it again") from error


def write_tensors(path: Path, groups: dict[str, dict[str, torch.Tensor]], metadata: dict) -> None:
    """Named groups of tensors and JSON-able metadata, as safetensors."""
    flat = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        try:
            save_file(flat, temporary, {"json": json.dumps(metadata)})
        except SafetensorError as error:  # what it makes of a full disk, for one
            raise OSError(f"{path}: cannot be written ({error}); make room there") from error


def read_tensors(path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict]:
    """What `write_tensors` wrote: groups on the CPU, and the metadata. safetensors orders its
    tensors by itself; the metadata's `order` is not needed because names carry the meaning.

    Raises ValueError where `path` is not such a file, or is cut short.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["json"])
            for key in file.keys():  # noqa: SIM118 (not a dictionary)
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a checkpoint of this package ({error}); delete it to start again"
        ) from error
    return groups, metadata
