import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils import config, runs
from negmeta_utils.engine.device import resolve_device
from negmeta_utils.storage import atomic, files, paths


def test_tensors_and_metadata_come_back_as_they_went(tmp_path):
    groups = {
        "params": {"conv1.weight": torch.rand(2, 3), "b": torch.tensor(1.5)},
        "alpha": {"conv1.weight": torch.rand(3, 2).T},
    }
    files.write_tensors(tmp_path / "a.safetensors", groups, {"update": 7, "best": float("inf")})
    back, metadata = files.read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"update": 7, "best": float("inf")}
    assert {g: set(t) for g, t in back.items()} == {g: set(t) for g, t in groups.items()}
    for group, tensors in groups.items():
        for name, value in tensors.items():
            assert torch.equal(back[group][name], value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_broken_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    files.write_tensors(path, {"params": {"w": torch.rand(100)}}, {})
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(ValueError, match="not (a whole file|what was written)") as raised:
        files.read_tensors(path)
    assert str(path) in str(raised.value)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.parquet"
    files.write_table(path, pd.DataFrame({"a": [1]}))
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert pd.read_parquet(path)["a"].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic.write_json(path, {"a": "b" * 10_000}),
        lambda path: files.write_table(path, pd.DataFrame({"a": np.random.rand(10_000)})),
        lambda path: files.write_tensors(path, {"params": {"w": torch.rand(10_000)}}, {}),
    ],
    ids=["json", "table", "tensors"],
)
def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # what is beyond fails
    try:
        with pytest.raises(OSError, match=r"cannot be written \(.*make room there") as raised:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("content", [b"", b"PAR1", None])
def test_a_broken_table_is_named(tmp_path, content):
    path = tmp_path / "history.parquet"
    files.write_table(path, pd.DataFrame({"a": [1]}))
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(ValueError, match="history.parquet: not (a whole|what was)") as raised:
        files.read_table(path)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_name_goes_when_python_ends(monkeypatch):
    at_the_end = []
    monkeypatch.setattr(
        runs.atexit, "register", lambda f, *a, **k: at_the_end.append(lambda: f(*a, **k))
    )
    folder = runs.output_folder(None)
    (folder / "table.csv").write_text("of a notebook")
    (remove,) = at_the_end
    remove()
    assert not folder.exists()


def test_the_commit_is_this_clones_whatever_git_is_told(tmp_path, monkeypatch):
    """As in a hook, where Git names its own repository."""
    commit = config._git_commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert config._git_commit() == commit


def test_relative_paths_are_relative_to_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.resolve("figures/demo") == tmp_path / "figures" / "demo"
    assert runs.directory_of("figures/demo") == runs.PACKAGE / "figures" / "demo"
    assert runs.directory_of("figures/other") == tmp_path / "figures" / "other"
    (tmp_path / "figures" / "demo").mkdir(parents=True)
    assert runs.directory_of("figures/demo") == tmp_path / "figures" / "demo"
    assert paths.resolve(paths.ROOT) == paths.ROOT
    assert runs.output_folder("made") == tmp_path / "made"
    assert (tmp_path / "made").is_dir()
    shutil.copytree(run.directory, tmp_path / "run-b")
    assert runs.load_run("run-b").directory == tmp_path / "run-b"
    assert len(runs.read_tables(["run-b"], "history.parquet")) == len(run.history())


def test_an_absent_run_is_named_with_the_shipped_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run there") as raised:
        runs.load_run(tmp_path)
    assert all(name in str(raised.value) for name in runs.shipped_runs())


@pytest.mark.parametrize("name", runs.shipped_runs())
def test_shipped_runs_load(name):
    run = runs.load_run(name)
    assert run.manifest["status"] == "complete"
    assert (
        f"{run.parameters['dataset']}-{run.parameters['method']}-{run.parameters['seed']}" == name
    )
    assert len(run.history()) == run.parameters["n_updates"]
    assert set(run.alpha) == set(run.params)


@pytest.mark.parametrize("name", [".", ""])
def test_the_folder_of_shipped_runs_is_none_itself(name):
    assert runs.directory_of(name) == Path.cwd()


def test_there_are_shipped_runs():
    assert runs.shipped_runs() == [
        f"{dataset}-{method}-0"
        for dataset in ("glyphs", "mini-imagenet")
        for method in ("maml", "meta-sgd")
    ]


def test_tables_of_several_folders_are_joined(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.write_table(tmp_path / name / "t.parquet", pd.DataFrame({"from": [name]}))
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert runs.read_tables(folders, "t.parquet")["from"].tolist() == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="no such table"):
        runs.read_tables([str(tmp_path)], "t.parquet")


def test_cuda_asked_for_and_absent_is_refused():
    assert resolve_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        assert resolve_device("auto").type == "cuda"
    else:
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="no such CUDA device here"):
            resolve_device("cuda")


def test_json_comes_back_as_it_went(tmp_path):
    path = tmp_path / "manifest.json"
    atomic.write_json(path, {"a": 1})
    assert atomic.read_json(path) == {"a": 1}
    assert json.loads(path.read_text())["a"] == 1, "others can read it too"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_are_as_readable_as_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        atomic.write_json(tmp_path / "a.json", {})
        files.write_table(tmp_path / "a.parquet", pd.DataFrame({"a": [1]}))
        files.write_tensors(tmp_path / "a.safetensors", {"a": {"b": torch.zeros(2)}}, {})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}
