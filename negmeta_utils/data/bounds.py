"""Memory and room on the disk, checked before they are used."""

import os
import shutil
from pathlib import Path

import psutil

# What images, tables and pickles of images unpack to is never so many times their packed length.
MAX_RATIO = 100
SMALL = 2**30  # bytes; less is no danger, however small the file it comes from


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, and of the control groups in which
    clusters and containers put it, which kill a process that exceeds their limit."""
    return min([psutil.virtual_memory().available, *_group_limits(system)])


def _group_limits(system: Path) -> list[int]:
    """What each limited control group above this process has left, its page cache not counted."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = system / "sys/fs/cgroup" / controllers
        limit, used = ("memory.max", "anon") if not controllers else (
            "memory.limit_in_bytes", "total_rss")  # fmt: skip
        group = top / name.lstrip("/")
        while group.is_relative_to(top):
            try:
                most = int((group / limit).read_text())  # "max" where there is no limit
                about = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
                left.append(max(0, most - int(about[used])))
            except (OSError, ValueError, KeyError):
                pass
            group = group.parent
    return left


def refuse_beyond_memory(needed: int, what: str, remedy: str) -> None:
    """Raise ValueError where `needed` bytes are more than nine tenths of those available."""
    available = available_memory()
    if needed > 0.9 * available:
        raise ValueError(
            f"{what} take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} are "
            f"free; {remedy}"
        )


def refuse_beyond_disk(needed: int, folder: Path, what: str) -> None:
    """Raise OSError where `needed` bytes are more than are free where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder}: {what} take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free there; "
            "make room"
        )


def is_bomb(length: int, packed: int) -> bool:
    """Whether content of `length` bytes is far more than a file of `packed` bytes can hold."""
    return length > SMALL and length > MAX_RATIO * packed


def length_of(path: Path) -> int:
    return os.stat(path).st_size
