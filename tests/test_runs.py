import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from negmeta_utils import config, runs
from negmeta_utils.storage import files, paths


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


def test_the_folder_of_a_run_takes_no_other_tables(run):
    """Notebook 2's rates.parquet would replace the run's own."""
    with pytest.raises(ValueError, match="out_dir=.*: the folder of a run; choose another folder"):
        runs.output_folder(str(run.directory))
    assert runs.output_folder(str(run.directory), training=True) == run.directory


def test_a_stray_file_beside_the_shipped_runs_is_none(tmp_path, monkeypatch):
    known = runs.shipped_runs()
    shutil.copytree(runs.PRETRAINED, tmp_path / "pretrained")
    (tmp_path / "pretrained" / ".DS_Store").touch()
    monkeypatch.setattr(runs, "PRETRAINED", tmp_path / "pretrained")
    assert runs.shipped_runs() == known


def test_the_commit_is_this_clones_whatever_git_is_told(tmp_path, monkeypatch):
    """As in a hook, where Git names its own repository."""
    commit = config._git_commit()
    if (paths.ROOT / ".git").exists() and shutil.which("git"):
        git = ["git", "-C", str(paths.ROOT)]
        (head, changed) = (
            subprocess.run([*git, *more], capture_output=True, text=True).stdout.strip()
            for more in (["rev-parse", "HEAD"], ["diff", "--stat", "HEAD"])
        )
        assert commit == head + ("-dirty" if changed else "")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert config._git_commit() == commit


def test_relative_paths_are_relative_to_the_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.resolve("figures/demo") == tmp_path / "figures" / "demo"
    assert runs.directory_of("figures/demo") == runs.PACKAGE / "figures" / "demo"
    published = runs.load_run("figures/decide/networks/maml-0@best")
    assert published.directory == runs.PACKAGE / "figures" / "decide" / "networks" / "maml-0"
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
    networks = paths.ROOT / "figures" / "decide" / "networks"
    with pytest.raises(FileNotFoundError, match=r"\(nearest: 'meta-sgd-meta-sgd-0'\)"):
        runs.load_run(networks / "meta-sgd-0")


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


@pytest.mark.parametrize("name", runs.COLUMNS)
def test_every_published_table_can_be_read_by_the_notebooks(name):
    found = [*(paths.ROOT / "figures").rglob(name), *runs.PRETRAINED.rglob(name)]
    assert len(found) > 8
    for path in found:
        assert len(runs.read_tables([str(path.parent)], name)), path


def test_tables_of_several_folders_are_joined(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.write_table(tmp_path / name / "t.parquet", pd.DataFrame({"from": [name]}))
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert runs.read_tables(folders, "t.parquet")["from"].tolist() == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="no such table"):
        runs.read_tables([str(tmp_path)], "t.parquet")
    for name, updates in (("a", [0, 60]), ("b", [1])):
        files.write_table(tmp_path / name / "t.parquet", pd.DataFrame({"seed": 3, "at": updates}))
    with pytest.raises(ValueError, match="b/t.parquet: seed 3, as in .*a/t.parquet; name one"):
        runs.read_tables(folders, "t.parquet")
