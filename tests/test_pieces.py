"""The rehearsal of a study in pieces: on a CPU, with tiny settings, from packing to notebooks."""

import shutil
import subprocess
import sys
import zipfile

import pandas as pd
import pytest
import torch
from studies import tiny_demo

from negmeta_utils import cli, features, pieces, runs
from negmeta_utils.config import TrainConfig
from negmeta_utils.features import evaluate_features
from negmeta_utils.training import train


def one_piece(folder, tmp_path, number, seconds):
    """On a machine that knows nothing but `folder`; what it leaves is brought back there."""
    work, out = tmp_path / f"machine-{number}", tmp_path / f"back-{number}"
    done = pieces.main(
        ["run", str(folder), "--work", str(work), "--out", str(out), "--seconds", str(seconds)]
    )
    shutil.rmtree(work)
    for archive in folder.glob("state-*.zip"):
        archive.unlink()
    for archive in out.iterdir():
        shutil.copy(archive, folder)
    return done


def test_pieces_come_to_what_one_go_comes_to(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "DATA_BYTES", 100_000)
    study, folder = tiny_demo(tmp_path / "study.yml", tiny_data), tmp_path / "travels"
    assert pieces.main(["pack", str(study), str(folder), "--data", str(tiny_data)]) == 0
    assert len(list(folder.glob("data-*.zip"))) > 1
    assert all(archive.stat().st_size <= 100_000 for archive in folder.glob("data-*.zip"))

    assert one_piece(folder, tmp_path, 0, 0) == pieces.MORE_TO_DO
    assert "stopped after meta-update 1, its checkpoint is kept" in capsys.readouterr().out
    assert one_piece(folder, tmp_path, 1, 0) == pieces.MORE_TO_DO
    monkeypatch.setattr(pieces, "evaluate_resumably", until(12))
    assert one_piece(folder, tmp_path, 2, 600) == pieces.MORE_TO_DO
    monkeypatch.undo()
    assert one_piece(folder, tmp_path, 3, 600) == 0
    assert "35 of 35 episodes evaluated" in capsys.readouterr().out

    results = tmp_path / "results"
    assert pieces.main(["unpack", str(folder), "--out", str(results)]) == 0
    jobs = runs.read_json(folder / "plan.json")["jobs"]
    parameters = {job["name"]: job["parameters"] for job in jobs}
    tables = []
    for name in ("train-maml-0", "train-meta-sgd-0"):
        given = {**parameters[name], "data_dir": str(tiny_data)}
        del given["out_dir"]
        alone = train(TrainConfig(**given), tmp_path / f"alone-{name}")
        inpieces = runs.load_run(results / name)
        for key, value in alone.params.items():
            assert torch.equal(inpieces.params[key], value), key
        assert len(inpieces.manifest["continued"]) >= 2
        tables.append(evaluate_features(alone, features.test_images([alone], str(tiny_data)), 35))

    manifests = {path: path.read_text() for path in results.glob("train-*/manifest.json")}
    assert cli.main(["study", str(study), "--out", str(results)]) == 0
    for path, text in manifests.items():
        assert path.read_text() == text, "it trained again"
    written = pd.read_parquet(results / "features" / "features.parquet")
    pd.testing.assert_frame_equal(written, pd.concat(tables, ignore_index=True))
    assert not list((results / "features").glob(".kept-*")), "nothing half-written is left"


def until(n_episodes):
    """An evaluation whose time is up after so many episodes."""

    def evaluate(run, images, _, eval_seed, folder, **settings):
        return whole(run, images, n_episodes, eval_seed, folder, **settings)

    whole = pieces.evaluate_resumably
    return evaluate


def test_archives_keep_to_their_size_and_refuse_what_cannot(tmp_path):
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    for number in range(7):
        (root / "below" / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    archives = pieces.write_archives(root, (root / "below").iterdir(), tmp_path, "data", 4000)
    assert len(archives) > 1
    assert all(archive.stat().st_size <= 4000 for archive in archives)
    pieces.read_archives(tmp_path, "data", tmp_path / "again")
    for path in (root / "below").iterdir():
        assert (tmp_path / "again" / "below" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="larger than an archive may be"):
        pieces.write_archives(root, (root / "below").iterdir(), tmp_path, "data", 900)
    with zipfile.ZipFile(tmp_path / "data-9.zip", "w") as file:
        file.writestr("../outside.txt", "x")
    pieces.read_archives(tmp_path, "data", tmp_path / "again")
    assert not (tmp_path / "outside.txt").exists()


BARE = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("papermill", "nbformat", "dask", "distributed", "statsmodels"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Absent())
from negmeta_utils import pieces
sys.exit(pieces.main(sys.argv[1:]))
"""


def test_the_other_machine_needs_no_notebooks(tiny_data, tmp_path):
    study = tiny_demo(tmp_path / "study.yml", tiny_data)
    pieces.main(["pack", str(study), str(tmp_path / "travels"), "--data", str(tiny_data)])
    command = ["run", str(tmp_path / "travels"), "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *command, "--out", str(tmp_path / "back"), "--seconds", "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == pieces.MORE_TO_DO, done.stderr
    assert (tmp_path / "back" / "state-0.zip").exists()
