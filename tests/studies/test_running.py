"""`make study`, cut down: side by side, in a row, again; and studies that fail or are killed."""

import os
import re
import shlex
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import small_studies
import torch
from clones import copy_clone, make_says, run
from small_studies import TINY_DEMO, options

from negmeta_utils.config import TrainConfig
from negmeta_utils.storage import atomic, files
from negmeta_utils.studies import attempts, cli, execute, planning, scheduling, study_file
from negmeta_utils.training import train

JOBS = ["train-maml-0", "train-meta-sgd-0", "alpha", "features", "statistics"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A fresh clone after `make study`, but for `verify`, and what that printed."""
    clone = copy_clone(tmp_path_factory.mktemp("clone"))
    study, report, _ = make_says("study", clone).splitlines()
    result = run(f"{study} {shlex.join(options(TINY_DEMO))} && {report}", clone)
    assert result.returncode == 0, result.stderr
    return clone, result.stdout


def ended(printed):
    """The lines on jobs that have ended; those on jobs that run are indented."""
    return [line for line in printed.splitlines() if line.startswith("[")]


def without_times(content):
    """A JSON file's content, without what says when, where, by whom, of which commit (a copied
    clone has none) and on how many threads."""
    times = {"started", "ended", "host", "worker", "threads", "git_commit", "key"}
    folders = {"out_dir", "runs"}
    if isinstance(content, dict):
        kept = {k: without_times(v) for k, v in content.items() if k not in times | folders}
        return {k: v for k, v in kept.items() if not k.startswith("seconds")}
    return content


def same(a: Path, b: Path) -> bool:
    if a.suffix == ".json":
        return without_times(atomic.read_json(a)) == without_times(atomic.read_json(b))
    if a.suffix == ".parquet":
        table = pd.read_parquet(a)
        folders = [c for c in table if table[c].astype(str).str.contains(str(a.parents[1])).any()]
        return table.drop(columns=folders).equals(pd.read_parquet(b).drop(columns=folders))
    if a.suffix == ".safetensors":
        (tensors, about), (others, about_others) = files.read_tensors(a), files.read_tensors(b)
        torch.testing.assert_close(tensors, others, rtol=0, atol=0)
        return without_times(about) == without_times(about_others)
    if a.suffix == ".ipynb":
        return True  # papermill stamps times and folders into it
    return a.read_bytes() == b.read_bytes()


def test_a_study_runs_end_to_end(made):
    clone, printed = made
    out = clone / "runs" / "demo"
    lines = ended(printed)
    assert [line.split("]")[0] for line in lines] == [f"[{n}/5" for n in range(1, 6)]
    names = [line.split("] ")[1].split(":")[0] for line in lines]
    assert sorted(names) == sorted(JOBS)
    assert names[-1] == JOBS[-1]
    for method in ("maml", "meta-sgd"):
        assert f" s; {out / f'train-{method}-0' / 'figure5.png'}\n" in printed
    assert "(f) the difference in (e) is significant: " in printed
    assert f"Look at the executed notebooks and figures in {out}\n" in printed
    for file in (
        "train-maml-0/model.safetensors", "train-meta-sgd-0/01_train.ipynb",
        "train-maml-0/figure5.png", "alpha/figure6.png", "alpha/table1.csv",
        "alpha/rates.parquet", "alpha/02_alpha_distribution.ipynb", "features/features.parquet",
        "features/figure7.svg", "features/feature_changes.png", "statistics/claims.csv",
        "statistics/04_statistics.ipynb",
    ):  # fmt: skip
        assert (out / file).is_file(), file
    written = re.search(r"The report is (\S+)\n$", printed)
    assert Path(written[1]).samefile(out / "report.html")


def test_side_by_side_gives_the_files_of_in_a_row(made, tmp_path):
    """`make study` has two workers."""
    steps = study_file.read_study(study_file.find_study("demo"), TINY_DEMO)
    first = {name: steps[name] for name in ("train", "alpha")}
    outcome = scheduling.run_study(planning.plan(first, tmp_path), tmp_path)
    assert outcome.done == JOBS[:3], outcome.errors
    outs = tmp_path, made[0] / "runs" / "demo"
    found = [
        {p.relative_to(out) for name in JOBS[:3] for p in (out / name).rglob("*") if p.is_file()}
        for out in outs
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 25
    assert not [file for file in found[0] if not same(outs[0] / file, outs[1] / file)]
    # The comparison itself: another method's rates are others.
    rates = [outs[0] / f"train-{method}-0" / "rates.parquet" for method in ("maml", "meta-sgd")]
    assert not same(*rates)


def test_a_second_time_does_nothing_and_another_value_what_reads_it(made, capsys):
    """Although this clone lies elsewhere."""
    out = made[0] / "runs" / "demo"
    study = ["study", "demo", "--out", str(out)]
    assert cli.main([*study, *options(TINY_DEMO)]) == 0
    again = capsys.readouterr().out
    assert again.count("already complete") == 5
    said = [line.split(":")[0] for line in ended(again)]
    assert said == [f"[{number}/5] {job}" for number, job in enumerate(JOBS, 1)]
    assert "(f) the difference" in again
    assert again.splitlines()[-1] == f"Look at the executed notebooks and figures in {out}"
    # Another value of one step redoes that step and what reads it, and nothing else.
    assert cli.main([*study, *options({**TINY_DEMO, "features.n_episodes": 36})]) == 0
    redone = ended(capsys.readouterr().out)
    assert [line.split(": ")[1][:4] for line in redone] == ["alre"] * 3 + ["done"] * 2


def test_a_failed_notebook_is_named_and_the_independent_ones_go_on(tmp_path, capsys, monkeypatch):
    code = "if number:\n    raise ValueError('number=1: not one of 0')"
    small_studies.small_notebook(tmp_path / "notebooks", code)
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    steps = {
        name: {"notebook": "small", "parameters": {"runs": runs}}
        for name, runs in (
            ("alone", {"from": "n", "number": 0}),
            ("all", {"from": "n"}),
            ("last", {"from": "all"}),
        )
    }
    steps["n"] = {"notebook": "small", "grid": {"number": [1, 0]}}
    path = small_studies.write_study(tmp_path / "failing.yml", steps)
    out = tmp_path / "out"
    assert cli.main(["study", str(path), "--out", str(out)]) == 1
    captured = capsys.readouterr()
    told = dict(line.split("] ")[1].split(": ", 1) for line in ended(captured.out))
    assert told["n-1"] == "FAILED"
    assert told["n-0"].startswith("done in")
    assert told["alone"].startswith("done in")
    assert told["all"] == "not run, since n-1 failed"
    assert told["last"] == "not run, since all failed"
    assert "n-1 failed: ValueError: number=1: not one of 0" in captured.err
    copy = out / "n-1" / "small.ipynb"
    assert str(copy) in captured.err
    assert copy.is_file()
    assert not (out / "n-1" / "job.json").exists()


def test_a_training_whose_worker_is_killed_goes_on_from_its_checkpoint(tmp_path, tiny_data):
    settings = {**small_studies.TINY, "n_updates": 200, "val_every": 50, "checkpoint_every": 5}
    settings["data_dir"] = str(tiny_data)
    step = {"notebook": "01_train", "grid": {"seed": [0]}, "parameters": settings}
    path = small_studies.write_study(tmp_path / "s.yml", {"train": step})
    folder = tmp_path / "out" / "train-0"
    process = small_studies.start(study_file.NOTEBOOKS, "study", path, "--out", folder.parent)
    small_studies.wait_for((folder / "checkpoint.safetensors").exists, process)
    (kernel,) = small_studies.kernels(process)
    kernel.parent().kill()
    printed, error = process.communicate()
    assert process.returncode == 0, error
    assert "[1/1] train-0: done" in printed
    manifest = atomic.read_json(folder / "manifest.json")
    assert len(manifest["continued"]) == 1, "else it ended before it was killed, or began anew"
    assert not kernel.is_running()
    train(TrainConfig(seed=0, **settings), tmp_path / "undisturbed")
    for name in ("model.safetensors", "history.parquet", "rates.parquet", "accuracy.parquet"):
        assert same(folder / name, tmp_path / "undisturbed" / name), name


def test_another_execution_leaves_nothing_of_the_one_before(tmp_path):
    """A notebook need not write the same files for other parameters."""
    notebooks = tmp_path / "notebooks"
    small_studies.small_notebook(
        notebooks,
        "from pathlib import Path\nPath(out_dir, f'{number}.csv').write_text('a')\n"
        "Path(out_dir, '.kept-a.parquet').touch()",
    )
    for number in (1, 2):
        parameters = {"number": number, "out_dir": str(tmp_path / "out" / "n")}
        job = planning.Job("n", "n", notebooks / "small.ipynb", parameters, (), f"key-{number}")
        assert execute.execute(job, tmp_path / "out" / "n").state == "done"
        found = [file.name for file in (tmp_path / "out" / "n").glob("*.csv")]
        assert found == [f"{number}.csv"]
    assert (tmp_path / "out" / "n" / ".kept-a.parquet").exists()


def test_what_failed_leaves_nothing_either_and_what_others_put_there_stays(tmp_path):
    notebooks, folder = tmp_path / "notebooks", tmp_path / "out" / "n"
    small_studies.small_notebook(
        notebooks,
        "from pathlib import Path\nPath(out_dir, f'{number}.csv').write_text('a')\n"
        "assert number % 2",
    )
    for number, state in ((1, "done"), (2, "failed"), (3, "done")):
        parameters = {"number": number, "out_dir": str(folder)}
        job = planning.Job("n", "n", notebooks / "small.ipynb", parameters, (), f"key-{number}")
        assert execute.execute(job, folder).state == state
        (folder / f"notes-{number}.md").write_text("mine")
        os.utime(folder / f"notes-{number}.md", (time.time() - 60,) * 2)  # as if put there before
    assert [file.name for file in folder.glob("*.csv")] == ["3.csv"]
    assert len(list(folder.glob("notes-*.md"))) == 3


def test_what_earlier_attempts_wrote_is_not_forgotten(tmp_path, monkeypatch):
    """Two are killed, the third is interrupted, the fourth succeeds; then come other parameters.
    Notes that a user puts there in between stay."""
    folder = tmp_path / "n"
    small_studies.small_notebook(tmp_path / "notebooks", "1")
    job = planning.Job("n", "n", tmp_path / "notebooks" / "small.ipynb", {}, (), "key")

    def write_and_end(*_):
        (folder / f"{attempt}.csv").write_text("a")
        (folder / "small.ipynb").write_text("as papermill saves it after every cell")
        if attempt in (1, 2):
            raise SystemExit("as if killed")
        return "KeyboardInterrupt" if attempt == 3 else ""

    monkeypatch.setattr(execute, "_papermill", write_and_end)
    for attempt in (1, 2, 3, 4):
        with suppress(SystemExit):
            execute.execute(job, folder)
        later = time.time() + attempt
        (folder / f"notes-{attempt}.md").write_text("mine")
        os.utime(folder / f"notes-{attempt}.md", (later, later))
    assert len(list(folder.glob("*.csv"))) == 4
    (folder / "old.md").mkdir()
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    for key in ("another", "and another"):
        attempt = key
        assert execute.execute(replace(job, key=key), folder).error == ""
        assert [path.stem for path in folder.glob("*.csv")] == [key]
    assert len(list(folder.glob("notes-*.md"))) == 4 and (folder / "old.md").exists()


def test_of_two_records_of_one_execution_the_one_of_its_success_counts(tmp_path):
    small_studies.small_notebook(tmp_path / "notebooks", "1")
    folder = tmp_path / "n"
    job = planning.Job("n", "n", tmp_path / "notebooks" / "small.ipynb", {}, (), "key")
    folder.mkdir()
    attempt = attempts.begin(job, folder)
    atomic.write_json(folder / "job.json", attempts.ended(attempt, folder))  # and then a kill
    (folder / "notes.md").write_text("mine")
    (folder / "small.ipynb").write_text("saved later")
    attempts.begin(replace(job, key="other"), folder)
    assert (folder / "notes.md").exists()


@pytest.mark.parametrize("name", ["job.json", "attempt.json"])
def test_a_record_that_is_none_is_named(tmp_path, name):
    job = planning.Job("n", "n", tmp_path / "small.ipynb", {}, (), "key")
    atomic.write_json(tmp_path / name, {"of": "something else"})
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        execute.execute(job, tmp_path)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ("KeyboardInterrupt", False),
        ("SystemExit: runs/a: stopped after meta-update 40, its checkpoint is kept", False),
        ("SystemExit: 1", True),
        ("ValueError: n_way=9: too many", True),
    ],
)
def test_what_was_interrupted_has_not_failed(tmp_path, monkeypatch, error, failed):
    small_studies.small_notebook(tmp_path / "notebooks", "1")
    job = planning.Job("n", "n", tmp_path / "notebooks" / "small.ipynb", {}, (), "key")
    monkeypatch.setattr(execute, "_papermill", lambda *_: error)
    assert execute.execute(job, tmp_path / "n").error == error
    assert ("error" in atomic.read_json(tmp_path / "n" / attempts.ATTEMPT)) == failed
