"""Studies side by side, twice at once, killed, interrupted, and on workers that others started."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import psutil
import pytest
import small_studies
from distributed import Client, LocalCluster
from distributed.security import Security

import negmeta_utils
from negmeta_utils.storage import atomic
from negmeta_utils.studies import cli, interruption, planning, scheduling, status, study_file

# Writes its process and whether one from before still lives, and goes on when nothing holds it.
LOGGED = """
import os, time, psutil
log = f"{out_dir}/log"
before = open(log).read().split() if os.path.exists(log) else []
with open(log, "a") as file:
    living = any(psutil.pid_exists(int(pid)) for pid in before)
    file.write(f"{os.getpid()}\\n")
assert not living
while os.path.exists(f"{out_dir}/../hold-{number}"):
    time.sleep(0.05)
"""


@pytest.fixture
def logged(tmp_path):
    """Notebooks, and the path of a study of three jobs in a row of grid, into tmp_path/out."""
    small_studies.small_notebook(tmp_path / "notebooks", LOGGED)
    steps = {"n": {"notebook": "small", "grid": {"number": [0, 1, 2]}}}
    (tmp_path / "out").mkdir()
    return tmp_path / "notebooks", small_studies.write_study(tmp_path / "s.yml", steps)


def starts(out):
    """How often each job was started."""
    logs = [out / f"n-{number}" / "log" for number in range(3)]
    return [len(log.read_text().split()) if log.exists() else 0 for log in logs]


def test_what_another_version_of_the_package_computed_is_said(logged, tmp_path, monkeypatch):
    monkeypatch.setattr(study_file, "NOTEBOOKS", logged[0])
    jobs = planning.plan(study_file.read_study(logged[1], {"number": 0}), tmp_path / "out")
    said = []
    scheduling.run_study(jobs, tmp_path / "out", say=said.append)
    scheduling.run_study(jobs, tmp_path / "out", say=said.append)
    record = tmp_path / "out" / "n" / "job.json"
    atomic.write_json(record, atomic.read_json(record) | {"version": "0.0.9"})
    scheduling.run_study(jobs, tmp_path / "out", say=said.append)
    of_this = f"this is {negmeta_utils.__version__}"
    assert said[1:] == [
        "[1/1] n: already complete", f"[1/1] n: already complete, by version 0.0.9; {of_this}"
    ]  # fmt: skip


def test_two_studies_at_once_do_each_job_once(logged, tmp_path):
    notebooks, path = logged
    out = tmp_path / "out"
    both = [small_studies.start(notebooks, "study", path, "--out", out) for _ in range(2)]
    printed = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert starts(out) == [1, 1, 1]
    for number in range(3):
        told = sorted(re.findall(rf"n-{number}: (already complete|done)", printed))
        assert told == ["already complete", "done"]


def test_a_killed_study_redoes_only_what_was_not_complete(logged, tmp_path):
    notebooks, path = logged
    out = tmp_path / "out"
    (out / "hold-1").touch()
    first = small_studies.start(notebooks, "study", path, "--out", out)
    small_studies.wait_for(lambda: starts(out) == [1, 1, 0], first)
    assert "n-1  running" in status.report(out)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    # Its worker and its kernel end by themselves; the second waits for them, or both would write.
    second = small_studies.start(notebooks, "study", path, "--out", out)
    small_studies.wait_for(lambda: starts(out) == [1, 2, 0], second)
    (out / "hold-1").unlink()
    printed, _ = second.communicate()
    assert second.returncode == 0
    assert starts(out) == [1, 2, 1]
    assert re.findall(r"n-\d: (already|done)", printed) == ["already", "done", "done"]


def test_a_study_goes_on_where_the_machine_slept(logged, tmp_path, monkeypatch):
    """Dask would give up a worker that was silent for this long."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "1s")
    notebooks, path = logged
    out = tmp_path / "out"
    (out / "hold-0").touch()
    process = small_studies.start(notebooks, "study", path, "--out", out)
    small_studies.wait_for(lambda: starts(out) == [1, 0, 0], process)
    study = psutil.Process(process.pid)
    asleep = [study, *study.children(recursive=True)]
    for one in asleep:
        one.suspend()
    time.sleep(8)  # ten heartbeats are the least that it waits
    study.resume()  # the workers wake last
    time.sleep(3)
    for one in asleep[1:]:
        one.resume()
    time.sleep(2)
    (out / "hold-0").unlink()
    process.communicate()
    assert process.returncode == 0
    assert starts(out) == [1, 1, 1]


def ctrl_c_again_and_again(process):
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)


def sigterm_to_all(process):
    """As batch systems send it."""
    study = psutil.Process(process.pid)
    for one in [study, *study.children(recursive=True)]:
        one.terminate()


@pytest.mark.parametrize("interrupt", [ctrl_c_again_and_again, sigterm_to_all])
def test_an_interrupted_study_says_one_line_and_leaves_no_kernel(logged, tmp_path, interrupt):
    notebooks, path = logged
    out = tmp_path / "out"
    (out / "hold-0").touch()
    process = small_studies.start(notebooks, "study", path, "--out", out)
    small_studies.wait_for(lambda: starts(out) == [1, 0, 0], process)
    below = psutil.Process(process.pid).children(recursive=True)
    assert small_studies.kernels(process)
    interrupt(process)
    _, error = process.communicate()
    assert process.returncode == interruption.STATUS
    assert error == interruption.SAID
    psutil.wait_procs(below, 30)
    assert not [one for one in below if one.is_running()]
    assert "n-0  to come  stopped before its end" in status.report(out)


def test_work_for_a_gpu_goes_to_the_worker_that_has_one(tmp_path, monkeypatch):
    """On a cluster that exists; its second worker, as the README starts one, says it has a GPU."""
    code = "import os; open(f'{out_dir}/gpu', 'w').write(os.environ.get('FAKE_GPU', 'none'))"
    small_studies.small_notebook(tmp_path / "notebooks", code)
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    grid = {"device": ["cuda", "cpu"], "number": [0, 1]}
    path = small_studies.write_study(tmp_path / "s.yml", {"n": {"notebook": "small", "grid": grid}})
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path / "out")
    said, workers = [], []

    def say(text):
        said.append(text)
        if text.startswith("waiting for a worker with a GPU"):
            workers.append(subprocess.Popen(
                [Path(sys.executable).parent / "dask", "worker", cluster.scheduler_address,
                 "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard",
                 "--local-directory", tmp_path],
                env={**os.environ, "FAKE_GPU": "0"}, stderr=subprocess.DEVNULL,
            ))  # fmt: skip

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        try:
            address = cluster.scheduler_address
            outcome = scheduling.run_study(jobs, tmp_path / "out", scheduler=address, say=say)
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(60)
    assert len(outcome.done) == 4, outcome.errors
    assert said[0] == "waiting for a worker with a GPU: start one with --resources GPU=1"
    seen = {job.name: (tmp_path / "out" / job.name / "gpu").read_text() for job in jobs}
    assert {seen[f"n-cuda-{number}"] for number in range(2)} == {"0"}


def test_cuda_that_is_absent_is_refused_before_anything_starts(logged, tmp_path, capsys):
    if shutil.which("nvidia-smi"):
        pytest.skip("it may be present here")
    arguments = ["--out", str(tmp_path / "new"), "--set", "train.device=cuda"]
    assert cli.main(["study", "demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert "device='cuda': no such CUDA device here" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "nonsense://x"])
def test_a_scheduler_that_is_not_there_is_told_in_one_line(address, closed_port, tmp_path, capfd):
    address = address.format(closed_port)
    assert cli.main(["study", "demo", "--out", str(tmp_path), "--scheduler", address]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"negmeta: --scheduler {address}: ")
    assert error.count("\n") == 1


def test_a_scheduler_that_is_lost_ends_the_study_in_one_line(tmp_path, monkeypatch):
    small_studies.small_notebook(tmp_path / "notebooks", "import time; time.sleep(600 * number)")
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    steps = {"n": {"notebook": "small", "grid": {"number": [0, 1]}}}
    path = small_studies.write_study(tmp_path / "s.yml", steps)
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path / "out")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        with pytest.raises(OSError, match="the dask scheduler was lost; start it and"):
            scheduling.run_study(
                jobs, tmp_path / "out", scheduler=address, say=lambda text: cluster.close()
            )
    # What was done before stays done.
    assert [planning.is_complete(job, tmp_path / "out" / job.name) for job in jobs] == [True, False]


def test_cores_are_divided_unless_the_user_says_how_many(monkeypatch):
    monkeypatch.setattr(scheduling, "cores", lambda: 8)
    for name in scheduling.THREADS:
        monkeypatch.delenv(name, raising=False)
    for workers, threads in ((1, "8"), (3, "2"), (8, "1"), (20, "1")):
        assert set(scheduling._threads(workers).values()) == {threads}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert scheduling._threads(2)["OMP_NUM_THREADS"] == "3"


def test_a_studys_own_cluster_leaves_the_cores_to_the_jobs_and_lets_nobody_in():
    def settings() -> list:
        names = ("worker.profile.enabled", "admin.tick.interval")
        return [dask.config.get(f"distributed.{name}") for name in names]

    with scheduling._cluster(1, None) as client:
        assert list(client.run(settings).values()) == [[False, "5s"]]
        no_one_else_comes_in(client.scheduler.address)


def no_one_else_comes_in(address):
    """Neither from another machine, nor another user of this one who has another certificate."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    opened = [c.laddr for p in processes for c in p.net_connections("inet") if c.status == "LISTEN"]
    assert len(opened) > 2
    assert {place.ip for place in opened} == {"127.0.0.1"}
    plain = address.replace("tls://", "tcp://")
    for tried, security in ((address, Security.temporary()), (plain, None)):
        with pytest.raises(OSError):
            Client(tried, security=security, timeout="1s", set_as_default=False)
