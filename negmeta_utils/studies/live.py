"""How far a study's running jobs are, on the terminal: a line each, and one for what is left."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from negmeta_utils.studies import status
from negmeta_utils.studies.execute import PROGRESS

SECOND = 1.0
MINUTE = 60.0  # between lines where they are not drawn anew but added, as to a file
ESTIMATED = 10  # looks at running jobs between two estimates, which read checkpoints


@contextmanager
def shown(out_dir: Path, names: list[str]) -> Iterator[Callable[[str], None]]:
    """Shows, while it is open, the progress of those jobs of the study in `out_dir`; yields what
    prints a line above it."""
    for name in names:  # of a job that was killed
        with suppress(OSError):  # the study itself will say that it cannot write there
            (out_dir / name / PROGRESS).unlink()
    ended = threading.Event()
    show = _drawn if sys.stderr.isatty() else _listed
    thread = threading.Thread(target=show, args=(out_dir, names, ended), daemon=True)
    thread.start()
    try:
        yield tqdm.write
    finally:
        ended.set()
        thread.join()


def running(out_dir: Path, names: list[str]) -> dict[str, str]:
    """What each running job last said, by name."""
    said = {}
    for name in names:
        try:
            said[name] = (out_dir / name / PROGRESS).read_text("utf-8")
        except OSError:
            continue
    return said


def _drawn(out_dir: Path, names: list[str], ended: threading.Event) -> None:
    lines: list[tqdm] = []
    total = ""
    looks = 0
    while not ended.wait(SECOND):
        said = [f"  {name}: {text}" for name, text in running(out_dir, names).items()]
        if looks % ESTIMATED == 0:
            total = _total(out_dir)
        looks += 1
        shown_now = [*said, total]
        while len(lines) < len(shown_now):
            lines.append(tqdm(bar_format="{desc}", position=len(lines), leave=False))
        while len(lines) > len(shown_now):
            lines.pop().close()
        for line, text in zip(lines, shown_now, strict=True):
            line.set_description_str(text)
    for line in reversed(lines):
        line.close()


def _listed(out_dir: Path, names: list[str], ended: threading.Event) -> None:
    while not ended.wait(MINUTE):
        for name, text in running(out_dir, names).items():
            tqdm.write(f"  {name}: {text}")
        tqdm.write(f"  {_total(out_dir)}")


def _total(out_dir: Path) -> str:
    try:
        return status.summary(out_dir)
    except FileNotFoundError:  # it is about to begin
        return ""
