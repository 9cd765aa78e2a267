"""Studies: read, planned, executed by papermill, overridden, resumed, and failing well."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import small_studies
import yaml

from negmeta_utils import runs
from negmeta_utils.storage import atomic, files, paths
from negmeta_utils.studies import cli, planning, scheduling, study_file

STUDIES = sorted((study_file.NOTEBOOKS / "studies").glob("*.yml"))


@pytest.fixture
def small(tmp_path, tiny_data):
    return small_studies.tiny_demo(tmp_path / "small.yml", tiny_data)


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_study_of_the_project_can_be_planned(path, tmp_path):
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path)
    names = [job.name for job in jobs]
    for job in jobs:
        assert all(names.index(need) < names.index(job.name) for need in job.needs)
        unknown = set(job.parameters) - set(papermill.inspect_notebook(str(job.notebook)))
        assert not unknown
    if path.stem in ("demo", "mini-imagenet", "paper"):
        assert {job.notebook.stem for job in jobs} == {
            "01_train", "02_alpha_distribution", "03_feature_adaptation", "04_statistics"
        }  # fmt: skip


def test_the_papers_study_has_the_papers_settings(tmp_path):
    jobs = planning.plan(study_file.read_study(study_file.find_study("paper"), {}), tmp_path)
    train = [job.parameters for job in jobs if job.notebook.stem == "01_train"]
    assert [p["method"] for p in train] == ["maml", "meta-sgd"]
    assert [(p.get("alpha_init"), p.get("alpha_lr")) for p in train] == [
        (None, None),
        ("uniform", 0.0001),
    ]
    expected = {
        "n_way": 5, "n_shot": 1, "n_query": 10, "n_tasks": 3, "inner_steps": 5, "inner_lr": 0.01,
        "n_updates": 60_000, "n_filters": 64, "image_size": 84,
    }  # fmt: skip
    for parameters in train:
        assert expected.items() <= parameters.items()
    (features,) = (job for job in jobs if job.step == "features")
    assert features.parameters["n_episodes"] == 40_000


def test_kernels_side_by_side_do_not_meet(tmp_path, monkeypatch):
    """Eight kernels started two by two from one folder, which once shared their sockets' names."""
    small_studies.small_notebook(
        tmp_path / "notebooks", "open(f'{out_dir}/number', 'w').write(str(number))"
    )
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    path = small_studies.write_study(
        tmp_path / "many.yml", {"n": {"notebook": "small", "grid": {"number": list(range(8))}}}
    )
    monkeypatch.chdir(tmp_path)
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path / "out")
    outcome = scheduling.run_study(jobs, tmp_path / "out", workers=2)
    assert not outcome.errors
    assert sorted(outcome.done) == [f"n-{i}" for i in range(8)]
    for i in range(8):
        assert (tmp_path / "out" / f"n-{i}" / "number").read_text() == str(i)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.yml", "notebooks", "out"]


def test_a_kernel_that_dies_fails_its_job_alone(tmp_path, monkeypatch):
    small_studies.small_notebook(tmp_path / "notebooks", "import os\nif number == 0: os._exit(1)")
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    path = small_studies.write_study(
        tmp_path / "s.yml", {"n": {"notebook": "small", "grid": {"number": [0, 1]}}}
    )
    jobs = planning.plan(study_file.read_study(path, {}), tmp_path / "out")
    outcome = scheduling.run_study(jobs, tmp_path / "out")
    assert outcome.failed == ["n-0"]
    assert outcome.done == ["n-1"]
    assert "DeadKernelError" in outcome.errors["n-0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s["train"]["parameters"].update(n_ways=5),
            "01_train has no parameter 'n_ways' (nearest: 'n_way'); it has",
        ),
        (lambda s: s["train"]["grid"].update(seeds=[0]), "01_train has no parameter 'seeds'"),
        (lambda s: s["train"].update(notebook="01_trian"), "no notebook '01_trian'; there are"),
        (lambda s: s["train"].update(loops=3), "step 'train': unknown key 'loops'"),
        (
            lambda s: s["alpha"]["parameters"].update(runs={"from": "trains"}),
            "no step 'trains' to take from",
        ),
        (
            lambda s: s["alpha"]["parameters"].update(runs={"from": "statistics"}),
            "steps need one another",
        ),
        (
            lambda s: s["alpha"]["parameters"].update(runs={"from": "train", "method": "boil"}),
            "step 'train' has no such job",
        ),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_anything_runs(
    small, tmp_path, capsys, change, message
):
    steps = yaml.safe_load(small.read_text())["steps"]
    change(steps)
    if "steps need one another" in message:
        steps["statistics"]["parameters"]["rates"] = {"from": "alpha"}
    path = small_studies.write_study(tmp_path / "wrong.yml", steps)
    assert cli.main(["study", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "study 'nothing': no such file; the studies here are backbones, decide"),
        (["demo", "--set", "n_updates"], "--set n_updates: write NAME=VALUE"),
        (["demo", "--set", "n_upd=3"], "--set n_upd: no such step or parameter"),
        (["demo", "--set", "train.n_upd=3"], "01_train has no parameter 'n_upd'"),
        (["demo", "--set", "trian.seed=3"], "--set trian.seed: no such step"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, message, tmp_path, capsys):
    assert cli.main(["study", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_overrides_reach_the_steps_they_name(small, tmp_path):
    overrides = {"seed": [3, 4], "train.method": "meta-sgd", "device": "auto"}
    jobs = planning.plan(study_file.read_study(small, overrides), tmp_path)
    train = [job for job in jobs if job.step == "train"]
    assert [(job.name, job.parameters["seed"]) for job in train] == [
        ("train-3", 3), ("train-4", 4)
    ]  # fmt: skip
    assert {job.parameters["method"] for job in train} == {"meta-sgd"}
    (features,) = (job for job in jobs if job.step == "features")
    assert features.parameters["device"] == "auto"
    assert features.parameters["runs"] == [str(tmp_path / "train-3"), str(tmp_path / "train-4")]


def test_a_parameter_takes_the_folders_of_several_steps(tmp_path):
    train = {"notebook": "01_train", "grid": {"seed": [0, 1]}}
    more = {"notebook": "01_train", "grid": {"method": ["anil", "boil"]}}
    runs_of = [{"from": "train", "seed": 1}, {"from": "more"}]
    look = {"notebook": "03_feature_adaptation", "parameters": {"runs": runs_of}}
    path = small_studies.write_study(
        tmp_path / "s.yml", {"look": look, "train": train, "more": more}
    )
    *_, job = planning.plan(study_file.read_study(path, {}), tmp_path)
    assert job.needs == ("train-1", "more-anil", "more-boil")
    assert job.parameters["runs"] == [str(tmp_path / name) for name in job.needs]
    runs_of[1]["from"] = "moer"
    with pytest.raises(ValueError, match="no step 'moer'"):
        study_file.read_study(
            small_studies.write_study(path, {"look": look, "train": train, "more": more}), {}
        )


def test_a_parameter_takes_networks_that_were_kept_along_the_way(tmp_path):
    keep_at = {"keep_at": [100]}
    train = {"notebook": "01_train", "grid": {"seed": [0, 1]}, "parameters": keep_at}
    reference = {"from": "train", "at": "best"}
    look = {"notebook": "03_feature_adaptation", "parameters": {"runs": reference}}

    def looking(at):
        reference["at"] = at
        path = small_studies.write_study(tmp_path / "s.yml", {"look": look, "train": train})
        return planning.plan(study_file.read_study(path, {}), tmp_path)[-1]

    for at in ("best", 100):
        assert looking(at).needs == ("train-0", "train-1")
        assert looking(at).parameters["runs"] == [f"{tmp_path}/train-{s}@{at}" for s in (0, 1)]
    assert looking("best").key != looking(100).key
    with pytest.raises(ValueError, match="at: train-0 keeps best, 100; choose one of these"):
        looking(200)


def test_notebooks_are_validated_without_the_grammar_that_takes_seconds():
    code = """import sys
from negmeta_utils.studies import planning, study_file
try:
    planning.nbformat.validate({"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
except planning.nbformat.ValidationError:
    print("lark" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_the_study_in_the_docs_can_be_planned(tmp_path):
    text = (paths.ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "s.yml").write_text(written)
    jobs = planning.plan(study_file.read_study(tmp_path / "s.yml", {}), tmp_path)
    assert [len(job.needs) for job in jobs] == [0, 0, 0, 0, 2, 4]
    assert jobs[-2].parameters["runs"][0].endswith("train-meta-sgd-0@200")


def test_a_job_is_another_when_the_code_of_its_notebook_is(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    monkeypatch.setattr(study_file, "NOTEBOOKS", notebooks)
    path = small_studies.write_study(
        tmp_path / "s.yml",
        {"a": {"notebook": "small"}, "b": {"notebook": "small", "grid": {"number": [1]}}},
    )

    def keys(code, text="", output=""):
        small_studies.small_notebook(notebooks, code)
        notebook = nbformat.read(notebooks / "small.ipynb", 4)
        notebook.cells.append(nbformat.v4.new_markdown_cell(text))
        notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text=output)]
        notebook.cells[1].execution_count = len(output)
        nbformat.write(notebook, notebooks / "small.ipynb")
        return [job.key for job in planning.plan(study_file.read_study(path, {}), tmp_path / "out")]

    before = keys("1 + 1")
    assert len(set(before)) == 2
    assert keys("1 + 1", "explained", "2") == before
    assert not set(keys("1 + 2")) & set(before)


def test_a_study_and_its_data_can_be_moved(small, tmp_path, tiny_data):
    def keys(out_dir, **overrides):
        return [job.key for job in planning.plan(study_file.read_study(small, overrides), out_dir)]

    before = keys(tmp_path / "here")
    assert keys(tmp_path / "there") == before
    assert keys(tmp_path / "here", data_dir=str(tmp_path / "elsewhere")) == before
    assert keys(tmp_path / "here", dataset="omniglot") != before


def own_images(folder, letter):
    """Files of one length, for whoever does not decode them."""
    for split in ("train", "val", "test"):
        (folder / split / f"{split}-class").mkdir(parents=True)
        (folder / split / f"{split}-class" / "0.png").write_text(letter)


def a_network(folder, body):
    folder.mkdir()
    (folder / "nets.py").write_text(f"class Tiny: {body}")


def a_run(folder, seed):
    folder.mkdir()
    atomic.write_json(folder / "manifest.json", {"seed": seed})


def tables(folder, value):
    folder.mkdir()
    files.write_table(folder / "rates.parquet", pd.DataFrame({"mean": [value]}))


@pytest.mark.parametrize(
    ("make", "one", "another", "target", "value"),
    [
        (own_images, "a", "b", "train.dataset", "folder:{}"),
        (a_network, "...", "pass", "train.network", "{}/nets.py:Tiny"),
        (a_run, 0, 1, "alpha.runs", ["{}", "{}@best", "glyphs-maml-0"]),
        (a_run, 0, 1, "alpha.runs", [{"from": "train"}, "{}"]),
        (tables, 0.1, 0.2, "statistics.rates", ["{}"]),
    ],
    ids=["data", "network", "runs", "runs beside jobs", "tables"],
)
def test_what_a_study_names_counts_by_its_content(
    make, one, another, target, value, small, tmp_path
):
    def keys(place):
        text = json.dumps(value).replace("{}", str(tmp_path / place))
        steps = study_file.read_study(small, {target: json.loads(text)})
        return {job.key for job in planning.plan(steps, tmp_path / "out") if job.step in target}

    absent = keys("here")
    make(tmp_path / "here", one)
    before = keys("here")
    assert not before & absent
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    assert keys("there") == before
    shutil.rmtree(tmp_path / "here")
    make(tmp_path / "here", another)
    assert not keys("here") & before


def test_a_shipped_run_counts_by_its_content_too(small, tmp_path, monkeypatch):
    def key(name):
        steps = study_file.read_study(small, {"alpha.runs": [name]})
        return next(j.key for j in planning.plan(steps, tmp_path / "out") if j.step == "alpha")

    shutil.copytree(runs.PRETRAINED / "glyphs-maml-0", tmp_path / "copy")
    assert key("glyphs-maml-0") == key(str(tmp_path / "copy")) != key("glyphs-meta-sgd-0")
    assert key("glyphs-maml-0@best") != key("glyphs-maml-0")


@pytest.mark.parametrize("damage", ["", "{"])
def test_what_is_named_and_damaged_is_left_for_its_job_to_refuse(damage, small, tmp_path):
    (tmp_path / "manifest.json").write_text(damage)
    for runs_of in ([str(tmp_path)], ["~nobody-here/run"], [f"/{300 * 'x'}"], ["\0"]):
        planning.plan(study_file.read_study(small, {"alpha.runs": runs_of}), tmp_path / "out")
    own_images(tmp_path / "data", "a")
    os.mkfifo(tmp_path / "data" / "val" / "val-class" / "1.png")
    overrides = {"train.dataset": f"folder:{tmp_path / 'data'}"}
    planning.plan(study_file.read_study(small, overrides), tmp_path / "out")


def test_results_go_below_the_working_directory(tmp_path, monkeypatch):
    small_studies.small_notebook(tmp_path / "notebooks", "open(f'{out_dir}/number', 'w').close()")
    monkeypatch.setattr(study_file, "NOTEBOOKS", tmp_path / "notebooks")
    small_studies.write_study(tmp_path / "s.yml", {"n": {"notebook": "small"}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["study", "../s.yml"]) == 0
    assert (tmp_path / "elsewhere" / "runs" / "s" / "n" / "number").is_file()
    assert cli.main(["study", "../s.yml", "--out", "other"]) == 0
    assert (tmp_path / "elsewhere" / "other" / "n" / "number").is_file()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cli.main(["study", "../s.yml", "--out=~/mine"]) == 0
    assert (tmp_path / "home" / "mine" / "n" / "number").is_file()


def test_notebooks_and_studies_are_laid_out_and_then_come_first(tmp_path, monkeypatch, capsys):
    assert cli.main(["notebooks", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"Notebooks and studies are in {tmp_path / 'notebooks'}\n"
    for path in study_file.NOTEBOOKS.rglob("*.*"):
        if path.suffix in (".ipynb", ".yml") and not path.parent.name.startswith("."):
            copy = tmp_path / "notebooks" / path.relative_to(study_file.NOTEBOOKS)
            assert copy.read_bytes() == path.read_bytes()
    assert cli.main(["notebooks", str(tmp_path)]) == 2
    assert "is there already; choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notebooks"]

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert study_file.find_study("demo") == study_file.NOTEBOOKS / "studies" / "demo.yml"
    monkeypatch.chdir(tmp_path)
    own = study_file.find_study("demo")
    assert own == tmp_path / "notebooks" / "studies" / "demo.yml"
    small_studies.small_notebook(tmp_path / "notebooks", "1")
    small_studies.write_study(own, {"n": {"notebook": "small"}})
    (job,) = planning.plan(study_file.read_study(own, {}), tmp_path / "runs")
    assert job.notebook == tmp_path / "notebooks" / "small.ipynb"
    monkeypatch.chdir(own.parent)
    (job,) = planning.plan(study_file.read_study(Path("demo.yml"), {}), tmp_path / "runs")
    assert job.notebook == tmp_path / "notebooks" / "small.ipynb"


def test_a_job_is_complete_for_its_parameters_and_sources_alone(small, tmp_path):
    def keys(overrides):
        jobs = planning.plan(study_file.read_study(small, overrides), tmp_path)
        return {job.name: job.key for job in jobs}

    before, same, other = keys({}), keys({}), keys({"train.n_updates": 5})
    assert before == same
    assert all(before[name] != other[name] for name in before), "all read from the trainings"
    (tmp_path / "alpha").mkdir()
    job = next(
        j for j in planning.plan(study_file.read_study(small, {}), tmp_path) if j.name == "alpha"
    )
    assert not planning.is_complete(job, tmp_path / "alpha")
    atomic.write_json(tmp_path / "alpha" / "job.json", {"key": before["alpha"]})
    assert planning.is_complete(job, tmp_path / "alpha")
    assert json.loads((tmp_path / "alpha" / "job.json").read_text())["key"] != other["alpha"]


def test_a_job_whose_tables_are_gone_is_not_complete(tmp_path):
    job = planning.Job("n", "n", tmp_path / "n.ipynb", {}, (), "key")
    for name in ("rates.parquet", "kept/best.safetensors", "checkpoint.safetensors", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = planning.results_in(tmp_path)
    assert files == ["kept/best.safetensors", "rates.parquet"]
    atomic.write_json(tmp_path / "job.json", {"key": "key", "files": files})
    (tmp_path / "checkpoint.safetensors").unlink()
    (tmp_path / "a.png").unlink()
    assert planning.is_complete(job, tmp_path)
    (tmp_path / "kept" / "best.safetensors").unlink()
    assert not planning.is_complete(job, tmp_path)
