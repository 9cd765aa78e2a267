"""Files that are whole or not there, and folders of one user at a time."""

import errno
import json
import os
import time
from contextlib import suppress

import pandas as pd
import pytest
from killing import PROCESSES

from negmeta_utils.storage import atomic, files


def test_json_comes_back_as_it_went(tmp_path):
    path = tmp_path / "manifest.json"
    atomic.write_json(path, {"a": 1})
    assert atomic.read_json(path) == {"a": 1}
    assert json.loads(path.read_text())["a"] == 1, "others can read it too"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.parquet"
    files.write_table(path, pd.DataFrame({"a": [1]}))
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert pd.read_parquet(path)["a"].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def write_slowly(path, written):
    with atomic.replacing(path) as temporary:
        temporary.write_text("half")
        written.set()
        time.sleep(600)


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    """Whatever their hosts and processes are called: two containers may have the same names."""
    (tmp_path / ".negmeta-of-nobody").mkdir()
    (tmp_path / ".other").touch()
    written = PROCESSES.Event()
    process = PROCESSES.Process(target=write_slowly, args=(tmp_path / "table", written))
    process.start()
    assert written.wait(300)
    (living,) = set(tmp_path.iterdir()) - {tmp_path / ".other"}
    with atomic.replacing(tmp_path / "table") as temporary:
        temporary.write_text("new")
    assert {p.name for p in tmp_path.iterdir()} == {"table", ".other", living.name}
    process.kill()
    process.join()
    with atomic.replacing(tmp_path / "second") as temporary:
        temporary.write_text("new")
    assert {p.name for p in tmp_path.iterdir()} == {"table", ".other", "second"}
    assert (tmp_path / "table").read_text() == "new"


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", unsupported)
    told = pytest.warns(UserWarning, match="run: no locks on this file system .*at the same time")
    with told, atomic.sole_user(tmp_path / "run"):
        atomic.write_json(tmp_path / "run" / "a.json", {})
    assert atomic.read_json(tmp_path / "run" / "a.json") == {}


def enter_often(folder, seconds, twice):
    """Count how often the folder is entered while another process is inside."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(BlockingIOError), atomic.sole_user(folder):
            try:
                (folder / "inside").touch(exist_ok=False)
            except FileExistsError:
                twice.value += 1
            (folder / "inside").unlink(missing_ok=True)


def test_a_folder_never_has_two_users(tmp_path):
    twice = PROCESSES.Value("i", 0)
    arguments = (tmp_path / "run", 2, twice)
    processes = [PROCESSES.Process(target=enter_often, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert twice.value == 0


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What a crash of the machine may take: neither order can be seen where it does not crash."""
    path, said = tmp_path / "a.json", []
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor):
        said.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def note_replace(source, target):
        said.append(("rename", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", note_sync)
    monkeypatch.setattr(atomic.os, "replace", note_replace)
    atomic.write_json(path, {"a": 1})
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert said == [("sync", file), ("rename", file), ("sync", folder)]
