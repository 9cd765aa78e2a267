"""What `negmeta status` says of folders in every state; of running studies in test_scheduling."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest
import small_studies

from negmeta_utils.storage import atomic, files
from negmeta_utils.studies import cli, execute, planning, status, study_file

KEYS = {"host": "here", "worker": 1}


def ago(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


@pytest.fixture
def planned(tmp_path):
    """Jobs n-0 to n-4 and m, planned and begun in tmp_path/out; nothing of them done."""
    steps = {
        "n": {"notebook": "01_train", "grid": {"seed": [0, 1, 2, 3, 4]}},
        "m": {"notebook": "02_alpha_distribution", "parameters": {"runs": {"from": "n"}}},
    }
    out = tmp_path / "out"
    path = small_studies.write_study(tmp_path / "s.yml", steps)
    jobs = planning.plan(study_file.read_study(path, {}), out)
    planning.write_plan(jobs, out)
    return path, out, {job.name: job for job in jobs}


@pytest.fixture
def leave():
    """Leaves the traces of a job in its folder; what is to be held is until the test ends."""
    held = []

    def leave(out, job, file, hold=False, **content):
        folder = out / job.name
        folder.mkdir(exist_ok=True)
        atomic.write_json(folder / file, {"key": job.key, **KEYS, **content})
        if hold:
            held.append((folder / execute.LOCK).open("w"))
            fcntl.flock(held[-1], fcntl.LOCK_EX)

    yield leave
    for file in held:
        file.close()


def rows(out):
    *table, _, last = status.report(out).splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in table}, last


def test_every_state_is_told_with_the_time_left(planned, leave):
    _, out, jobs = planned
    leave(out, jobs["n-0"], "job.json", seconds=100.0)
    leave(out, jobs["n-1"], "job.json", seconds=140.0)
    leave(out, jobs["n-2"], "attempt.json", hold=True, started=ago(30))
    leave(out, jobs["n-3"], "attempt.json", started=ago(30), error="ValueError: no such thing")
    leave(out, jobs["n-4"], "attempt.json", started=ago(30))  # its process was killed
    told, last = rows(out)
    assert told["n-0"] == "done in 1 min 40 s"
    assert told["n-2"].startswith("running for 3")
    assert " on here, about 1 min " in told["n-2"], "120 s are usual, 30 of them are over"
    assert told["n-3"] == "failed ValueError: no such thing"
    assert told["n-4"] == "to come stopped before its end"
    assert told["m"] == "to come"
    # 90 s of n-2 and twice 120 s, less what this test has taken.
    assert last.startswith("2 done, 1 running, 1 failed, 2 to come; about 5 min ")
    assert last.endswith("left with 1 at once; 1 more cannot be estimated yet")


def test_a_running_training_is_judged_by_its_checkpoint(planned, leave):
    _, out, jobs = planned
    leave(out, jobs["n-0"], "attempt.json", hold=True, started=ago(1000))
    assert "time left unknown" in rows(out)[0]["n-0"], "no checkpoint, and none finished"
    assert rows(out)[1].endswith("time left unknown (with 1 at once)")
    folder = out / "n-0"
    atomic.write_json(folder / "manifest.json", {"parameters": {"n_updates": 400}})
    saved = {"update": 100, "seconds": 800.0}
    files.write_tensors(folder / "checkpoint.safetensors", {}, saved)
    before = time.time() - 100
    os.utime(folder / "checkpoint.safetensors", (before, before))
    told, last = rows(out)
    # 300 updates of 8 s, 100 s of them since the checkpoint; each of the four others that and
    # the 1000 s so far.
    assert ", meta-update 100 of 400, about 38 min " in told["n-0"]
    assert "; about 4 h 18 min left" in last
    # On this machine it takes half as long: 300 updates of 4 s, less 100 s.
    went_on = {"continued": [{"update": 50, "seconds": 600.0}]}
    atomic.write_json(folder / "manifest.json", {"parameters": {"n_updates": 400}} | went_on)
    assert ", meta-update 100 of 400, about 18 min " in rows(out)[0]["n-0"]


def test_other_parameters_say_nothing_of_a_time(tmp_path, leave):
    steps = {"n": {"notebook": "01_train", "grid": {"n_updates": [5, 500], "seed": [0, 1]}}}
    path = small_studies.write_study(tmp_path / "s.yml", steps)
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path)
    planning.write_plan(jobs, tmp_path)
    leave(tmp_path, jobs[0], "job.json", seconds=60.0)
    assert rows(tmp_path)[1] == (
        "1 done, 0 running, 0 failed, 3 to come; about 1 min 0 s left one by one, but none is "
        "running; 2 more cannot be estimated yet"
    )


def test_status_of_a_study_by_name_and_folder(planned, leave, capsys, tmp_path):
    path, out, jobs = planned
    for job in jobs.values():
        leave(out, job, "job.json", seconds=3725.0)
    assert cli.main(["status", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "n-0  done  in 1 h 2 min"
    assert printed[-1] == "6 done, 0 running, 0 failed, 0 to come; complete"
    assert cli.main(["status", str(path), "--out", str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert error.endswith("no study was started there (no plan.json); name its --out\n")
    assert error.count("\n") == 1


def test_a_reader_that_has_seen_enough_ends_it_quietly(planned):
    path, out, _ = planned
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "negmeta_utils", "status", str(path), "--out", str(out)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
