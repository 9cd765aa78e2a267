"""Executions of a job in its folder: what is known of them, and what they wrote.

`attempt.json` is of one that has not succeeded (yet): its start and, if it failed, why; `job.json`
of one that has. Both say which tables, figures and answers the executions of this job left there,
so that those of one with other parameters go, and what a user has put there stays.
"""

import os
import platform
from pathlib import Path

from negmeta_utils.data.names import one_line
from negmeta_utils.storage import atomic
from negmeta_utils.studies.planning import ATTEMPT, SUCCESS, Job

WRITTEN = (".csv", ".md", ".parquet", ".png", ".svg")  # by notebooks


def begin(job: Job, folder: Path) -> dict:
    """The record of an execution that begins, also in `attempt.json`.

    Deletes the record of a job that was complete here, and, but for a training, which goes on from
    them, what executions with other parameters or sources wrote: not every table would be written
    again. Raises ValueError for records that are none.
    """
    kept: set[str] = set()
    for record in _records(folder):
        wrote = _wrote(record, folder, job.notebook.name)
        if record["key"] == job.key:
            kept |= wrote
        elif not (folder / "manifest.json").exists():
            for name in wrote:
                (folder / name).unlink(missing_ok=True)
    attempt = {
        "key": job.key,
        "wrote": sorted(kept),
        "there": _files(folder),
        "started": atomic.now(),
        "host": platform.node(),
        "worker": os.getpid(),
    }
    atomic.write_json(folder / ATTEMPT, attempt)
    (folder / SUCCESS).unlink(missing_ok=True)
    return attempt


def ended(attempt: dict, folder: Path) -> dict:
    """The record of an execution that has ended."""
    wrote = sorted({*attempt["wrote"], *_since(attempt["there"], folder)})
    known = {name: value for name, value in attempt.items() if name != "there"}
    return known | {"wrote": wrote, "ended": atomic.now()}


def _records(folder: Path) -> list[dict]:
    """What is known of executions in `folder`. A kill may leave both records of one, of which that
    of its success knows more."""
    found: dict[tuple, dict] = {}
    for path in (folder / SUCCESS, folder / ATTEMPT):
        if path.is_file():
            with one_line(path):
                record = atomic.read_json(path)
                found.setdefault((record["key"], record["started"]), record)
    return list(found.values())


def _wrote(record: dict, folder: Path, notebook: str) -> set[str]:
    """What executions up to this one left in `folder`; of one that was killed, what is no newer
    than its notebook as last saved, after a cell: what came later may be a user's."""
    wrote = {Path(name).name for name in record.get("wrote", ())}
    saved = folder / notebook
    if "there" in record and saved.is_file():
        last = saved.stat().st_mtime_ns
        wrote |= {name for name, at in _since(record["there"], folder).items() if at[0] <= last}
    return wrote


def _since(there: dict[str, list[int]], folder: Path) -> dict[str, list[int]]:
    """What is not as it was."""
    return {name: at for name, at in _files(folder).items() if there.get(name) != at}


def _files(folder: Path) -> dict[str, list[int]]:
    """Tables, figures and answers: when each was written, in nanoseconds, and its inode."""
    found = [path for path in folder.glob("[!.]*") if path.suffix in WRITTEN and path.is_file()]
    return {path.name: [path.stat().st_mtime_ns, path.stat().st_ino] for path in found}
