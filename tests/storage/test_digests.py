"""Files of a run that changed after they were written, and files that do not belong together."""

import hashlib
import json
import random
import shutil
import struct
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils import evaluation, resumable, runs, training
from negmeta_utils.storage import atomic, digests, files
from negmeta_utils.training import train

FLIPS = 6  # of one bit each, in every file


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(
        tiny_config, method="meta-sgd", lr_schedule="plateau", outer_lr=0.02, alpha_lr=0.01,
        keep_at=[3], n_updates=6, val_every=2, checkpoint_every=2, n_tasks=1, inner_steps=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("whole") / "run").directory


@pytest.fixture(scope="module")
def half(config, tmp_path_factory):
    """The same training, stopped in meta-update 6: its checkpoint is of 4."""
    folder, step = tmp_path_factory.mktemp("half") / "run", training._meta_update

    def stopping(config, state, *rest):
        if state.update == 5:
            raise KeyError
        step(config, state, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_meta_update", stopping)
        with pytest.raises(KeyError):
            train(config, folder)
    return folder


@pytest.fixture
def copy(tmp_path):
    def copied(folder):
        return shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)

    return copied


def flipped(path, generator):
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def refused(path, call):
    """The one line that `call` fails with, which names `path`."""
    with pytest.raises(ValueError) as raised:
        call()
    line = str(raised.value)
    assert str(path) in line and "\n" not in line
    return line


def read_all(folder):
    run = runs.load_run(folder)
    tables = run.history(), run.rates(), run.every_rate(), run.final_accuracy()
    return tables, [runs.load_run(f"{folder}@{name}") for name in runs.kept(folder)[:-1]]


def test_a_flipped_bit_in_any_file_of_a_finished_run_is_named(whole, copy):
    names = sorted(p.relative_to(whole) for p in whole.rglob("[!.]*") if p.is_file())
    read = [n for n in names if n.name != "checkpoint.safetensors"]
    assert len(names) == len(read) + 1 == 9
    generator = random.Random(0)
    for name in read:
        for _ in range(FLIPS):
            folder = copy(whole)
            flipped(folder / name, generator)
            refused(folder / name, lambda folder=folder: read_all(folder))


def test_a_flipped_bit_in_any_file_that_training_goes_on_from_is_named(config, half, copy):
    names = ["manifest.json", "checkpoint.safetensors", "kept/3.safetensors"]
    names += [f"{name}.parquet" for name in ("history", "rates", "every_rate")]
    generator = random.Random(0)
    for name in names:
        for _ in range(FLIPS):
            folder = copy(half)
            flipped(folder / name, generator)
            refused(folder / name, lambda folder=folder: train(config, folder))


def test_what_was_not_changed_is_taken(config, whole, half, copy):
    read_all(copy(whole))
    folder = copy(half)
    train(config, folder)
    for name in ("model.safetensors", "history.parquet", "every_rate.parquet"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def edited(path, change):
    """A checkpoint written anew after `change` of its groups and metadata: its digest is right."""
    groups, metadata = files.read_tensors(path)
    change(groups, metadata)
    files.write_tensors(path, groups, metadata)


def first_rows(table, update):
    return table[table["update"] <= update]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("history", lambda t: first_rows(t, 2)),
        ("history", lambda t: t.assign(train_loss=t["train_loss"] + 1e-6)),
        ("history", lambda t: pd.concat([t, t])),
        ("history", lambda t: t.rename(columns={"val_loss": "loss"})),
        ("history", lambda t: t.rename(columns={"update": "step"})),
        ("rates", lambda t: t.iloc[::-1]),
        ("rates", lambda t: first_rows(t, 0)),
        ("every_rate", lambda t: t.head(len(t) - 1)),
    ],
)
def test_a_table_of_another_time_than_the_checkpoint_is_refused(config, half, copy, name, change):
    path = copy(half) / f"{name}.parquet"
    files.write_table(path, change(files.read_table(path)))
    assert "not those of the checkpoint" in refused(path, lambda: train(config, path.parent))


@pytest.mark.parametrize(
    "change",
    [
        lambda groups, metadata: metadata.update(update=2),
        lambda groups, metadata: metadata.update(outer_lrs=[0.5, 0.5]),
        lambda groups, metadata: groups["params"].pop("conv1.weight"),
        lambda groups, metadata: groups["params"].update({"conv1.bias": torch.ones(1)}),
        lambda groups, metadata: groups["alpha"].update({"conv1.bias": torch.tensor(1.0)}),
        lambda groups, metadata: groups["exp_avg"].update({"0": torch.ones(1)}),
        lambda groups, metadata: groups.pop("exp_avg_sq"),
        lambda groups, metadata: groups["step"].update({"3": torch.tensor(7.0)}),
    ],
    ids=["update", "outer_lr", "gone", "shape", "scalar", "moment", "moments", "step"],
)
@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_a_checkpoint_that_contradicts_itself_is_refused(
    config, half, copy, change, schedule, tmp_path
):
    path = copy(half) / "checkpoint.safetensors"
    if schedule == "constant":  # as a run without a schedule has it
        config = replace(config, lr_schedule="constant")
        for name in ("manifest.json", "checkpoint.safetensors"):
            of_constant(path.with_name(name))
    edited(path, change)
    refused(path.parent, lambda: train(config, path.parent))


def of_constant(path):
    if path.suffix == ".json":
        manifest = atomic.read_json(path)
        manifest["parameters"]["lr_schedule"] = "constant"
        atomic.write_json(path, manifest)
    else:
        edited(path, lambda _, m: m["run"]["parameters"].update(lr_schedule="constant"))


def test_a_network_of_another_run_among_the_kept_is_refused(config, half, copy, whole):
    folder = copy(half)
    shutil.copy(whole / "kept" / "best.safetensors", folder / "kept" / "3.safetensors")
    line = refused(folder, lambda: train(config, folder))
    assert "3.safetensors" in line or "best.safetensors" in line


@pytest.mark.parametrize("name", ["model.safetensors", "accuracy.parquet", "history.parquet"])
def test_a_file_of_another_run_beside_a_manifest_is_refused(config, whole, copy, tmp_path, name):
    other = train(replace(config, seed=1, n_updates=2, keep_at=[]), tmp_path / "other").directory
    folder = copy(whole)
    shutil.copy(other / name, folder / name)
    assert "not the file that manifest.json" in refused(folder / name, lambda: read_all(folder))


def test_a_manifest_edited_by_hand_is_refused(whole, copy):
    path = copy(whole) / "manifest.json"
    content = json.loads(path.read_text())
    content["results"]["test_accuracy"] = 0.99
    path.write_text(json.dumps(content, indent=2) + "\n")
    assert "not what was written" in refused(path, lambda: runs.load_run(path.parent))


@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1", b"negmeta-sha256:"])
@pytest.mark.parametrize("read", [atomic.read_json, files.read_table, files.read_tensors])
def test_what_this_package_did_not_write_is_named(tmp_path, content, read):
    path = tmp_path / "file"
    path.write_bytes(content)
    refused(path, lambda: read(path))


@pytest.mark.parametrize("read", [atomic.read_json, files.read_table, files.read_tensors])
def test_a_whole_file_of_another_kind_is_named(tmp_path, read):
    path = tmp_path / "file"
    path.write_text(f"[{digests.EMPTY}]")
    digests.seal(path)
    refused(path, lambda: read(path))


def test_episodes_kept_twice_are_refused(run, tiny_data, tmp_path):
    images = evaluation.shared_test_images([run], str(tiny_data))
    resumable.features_of_run(run, images, 3, 0, tmp_path)
    (path,) = tmp_path.iterdir()
    table = files.read_table(path)
    files.write_table(path, pd.concat([table, table]))
    refused(path, lambda: resumable.features_of_run(run, images, 6, 0, tmp_path))


@pytest.mark.parametrize("name", runs.shipped_runs())
def test_shipped_files_are_those_that_their_manifests_list(name):
    run = runs.load_run(name)
    assert run.manifest["files"] == runs.file_digests(run.directory)
    assert {"model.safetensors", "history.parquet", "accuracy.parquet"} <= set(
        run.manifest["files"]
    )


def test_a_tables_digest_is_of_its_values_alone(tmp_path):
    """Not of what a version of pandas makes of them: a checkpoint goes on under another one."""
    table = pd.DataFrame(
        {
            "update": [1, 2, 3],
            "name": pd.Categorical(["b", "a", "b"], categories=["a", "b", "c"]),
            "rate": np.array([0.5, np.nan, -1], dtype=np.float32),
        }
    )
    content = (
        b'["update", "name", "rate"]'
        + struct.pack("<3d", 1, 2, 3)
        + b'["b", "a"]'
        + struct.pack("<3q", 0, 1, 0)
        + struct.pack("<3d", 0.5, np.nan, -1)
    )
    assert files.digest_of(table) == hashlib.sha256(content).hexdigest()
    files.write_table(tmp_path / "table.parquet", table)
    assert files.digest_of(files.read_table(tmp_path / "table.parquet")) == (files.digest_of(table))
    table.loc[1, "name"] = "b"
    assert files.digest_of(table) != hashlib.sha256(content).hexdigest()
