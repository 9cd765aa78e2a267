"""The lockstep of several trainings, its passes by the CPU's engine in the kernels' place: what
comes out is what `training.train` makes of each configuration alone."""

import dataclasses
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils import training
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import Episodes, ImageSet
from negmeta_utils.gpu import drawing, group
from negmeta_utils.gpu import training as together
from negmeta_utils.gpu.meta_gradient import MetaGradients
from negmeta_utils.model import init_params
from negmeta_utils.storage import atomic, files

SHARED = {
    "n_way": 3, "n_query": 2, "n_filters": 32, "image_size": 16, "n_tasks": 2,
    "inner_steps": 2, "n_updates": 7, "val_every": 2, "val_episodes": 4, "val_fresh": True,
    "test_episodes": 4, "keep_at": [3], "device": "cpu",
}  # fmt: skip
CONFIGS = [
    TrainConfig(method="maml", seed=1, lr_schedule="plateau", **SHARED),
    TrainConfig(method="meta-sgd", seed=1, alpha_lr=0.003, **SHARED),
    TrainConfig(method="meta-sgd-positive", seed=2, alpha_init="uniform", **SHARED),
]


def _like(layout):
    sizes = layout.channels, layout.image_size, layout.n_way, layout.n_filters
    return {name: torch.zeros_like(value) for name, value in init_params(0, *sizes).items()}


def _episodes(support, query, network, n_networks):
    def images(batch):
        rows = batch.rows.unflatten(0, (n_networks, -1))[network].long()
        return batch.images[rows].movedim(-1, 2).float() / 255

    return Episodes(images(support), support.labels, images(query), query.labels)


def _meta_gradients(layout, params, alpha, support, query, n_steps):
    found, like = [], _like(layout)
    for i, (theta, rates) in enumerate(zip(params, alpha, strict=True)):
        own = layout.unpack(theta, like), layout.unpack(rates, like)
        episodes = _episodes(support, query, i, len(params))
        g = adjoint.meta_gradient(*own, episodes, n_steps)
        found.append((g.loss, g.accuracy, layout.pack(g.params), layout.pack(g.alpha)))
    return MetaGradients(*(torch.stack(values) for values in zip(*found, strict=True)))


def _adapted_logits(layout, params, alpha, support, query, n_steps):
    logits, like = [], _like(layout)
    for i, (theta, rates) in enumerate(zip(params, alpha, strict=True)):
        own = layout.unpack(theta, like), layout.unpack(rates, like)
        e = _episodes(support, query, i, len(params))
        adapted = adjoint.adapt(*own, e.support, e.support_labels, n_steps)
        logits.append(adjoint.logits(adapted, e.query))
    return torch.cat(logits)


def _noise(split):
    """Images without equal neighbours: of those the last digits would choose the pooled place."""
    generator = torch.Generator().manual_seed(len(split))
    images = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return ImageSet(images, tuple("abcdef"), np.full(6, 10), split)


@pytest.fixture(autouse=True)
def noise(monkeypatch):
    monkeypatch.setattr(training, "load_split", lambda dataset, split, *rest: _noise(split))


@pytest.fixture
def by_cpu(monkeypatch):
    monkeypatch.setattr(group, "meta_gradients", _meta_gradients)
    monkeypatch.setattr(group, "adapted_logits", _adapted_logits)


@pytest.fixture
def splits():
    return training.load_splits(CONFIGS[0])[1]


def _resolved(configs):
    return [training.load_splits(config)[0] for config in configs]


def _tables(directory):
    return {name: files.read_table(directory / f"{name}.parquet")
            for name in ("history", "rates", "every_rate")}  # fmt: skip


def test_each_is_what_it_is_alone(tmp_path, by_cpu, splits):
    configs = _resolved(CONFIGS)
    folders = [tmp_path / config.method for config in configs]
    together.train_together(configs, folders, splits, device="cpu")
    for config, folder in zip(configs, folders, strict=True):
        alone = training.train(config, tmp_path / "alone" / config.method)
        finished = training.train(config, folder)
        assert finished.manifest["status"] == "complete"
        for name, value in alone.params.items():
            torch.testing.assert_close(finished.params[name], value, atol=2e-5, rtol=2e-4)
        for name, value in alone.alpha.items():
            torch.testing.assert_close(finished.alpha[name], value, atol=2e-5, rtol=2e-4)
        own, other = _tables(folder), _tables(alone.directory)
        for name, table in other.items():
            numbers = table.select_dtypes("float").columns
            pd.testing.assert_frame_equal(
                own[name].drop(columns=numbers), table.drop(columns=numbers)
            )
            pd.testing.assert_frame_equal(own[name][numbers], table[numbers], atol=2e-4, rtol=2e-3)
        kept = sorted(path.name for path in (folder / "kept").iterdir())
        assert kept == sorted(path.name for path in (alone.directory / "kept").iterdir())


def test_they_go_on_from_where_they_were(tmp_path, by_cpu, splits):
    configs = _resolved(CONFIGS[1:2])
    together.train_together(configs, [tmp_path / "whole"], splits, device="cpu")
    together.train_together(configs, [tmp_path / "halves"], splits, device="cpu", seconds=0)
    half = files.read_tensors(tmp_path / "halves" / "checkpoint.safetensors")[1]
    assert half["update"] == 2
    together.train_together(configs, [tmp_path / "halves"], splits, device="cpu")
    whole, halves = (
        files.read_tensors(tmp_path / name / "checkpoint.safetensors")[0]
        for name in ("whole", "halves")
    )
    for kind, tensors in whole.items():
        for name, value in tensors.items():
            torch.testing.assert_close(halves[kind][name], value, atol=1e-6, rtol=1e-5)


def test_a_signal_leaves_checkpoints_that_all_go_on_from(tmp_path, by_cpu, splits):
    configs = _resolved(CONFIGS[:2])
    folders = [tmp_path / config.method for config in configs]
    with pytest.raises(SystemExit, match="stopped after meta-update 2"):
        together.train_together(
            configs, folders, splits, lambda text: signal.raise_signal(signal.SIGTERM), device="cpu"
        )
    saved = [files.read_tensors(f / "checkpoint.safetensors")[1]["update"] for f in folders]
    assert saved == [2, 2]
    together.train_together(configs, folders, splits, device="cpu")
    assert {len(_tables(folder)["history"]) for folder in folders} == {7}


def test_one_that_diverges_leaves_the_checkpoints_of_the_others(
    tmp_path, by_cpu, splits, monkeypatch
):
    def diverging(*arguments):
        found = _meta_gradients(*arguments)
        found.loss[0] = float("nan")
        return found

    configs = _resolved(CONFIGS[:2])
    folders = [tmp_path / config.method for config in configs]
    together.train_together(configs, folders, splits, device="cpu", seconds=0)
    monkeypatch.setattr(group, "meta_gradients", diverging)
    monkeypatch.setattr(together, "fault", lambda *_: None)
    with pytest.raises(FloatingPointError, match="maml"):
        together.train_together(configs, folders, splits, device="cpu")
    saved = [files.read_tensors(f / "checkpoint.safetensors")[1]["update"] for f in folders]
    assert saved[0] == 2 < saved[1]


def _a_fifth_wrong(*arguments):
    found = _meta_gradients(*arguments)
    return found._replace(alpha=1.2 * found.alpha)


def _failing(*arguments):
    raise RuntimeError("out of resource: shared memory\nand more")


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        (_a_fifth_wrong, " is 0.2 times the reference's length away"),
        (_failing, "it fails with RuntimeError: out of resource: shared memory"),
    ],
)
def test_where_kernels_are_wrong_or_fail_each_trains_by_itself(
    kernels, said, tmp_path, by_cpu, splits, monkeypatch
):
    monkeypatch.setattr(group, "meta_gradients", kernels)
    configs = _resolved(CONFIGS[1:2])
    found = together.train_together(configs, [tmp_path / "run"], splits, device="cpu")
    assert found.startswith("meta-sgd, seed 1: it") and said in found and "\n" not in found
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    run = training.train(configs[0], tmp_path / "run")
    alone = training.train(configs[0], tmp_path / "alone")
    assert all(run.params[name].equal(value) for name, value in alone.params.items())
    assert said in run.manifest["environment"]["engine"]
    (continued,) = run.manifest["continued"]
    assert continued["environment"]["engine"] == "adjoint"


def test_a_training_by_kernels_says_that_they_were_compared(tmp_path, by_cpu, splits):
    together.train_together(_resolved(CONFIGS[:1]), [tmp_path / "run"], splits, device="cpu")
    environment = atomic.read_json(tmp_path / "run" / "manifest.json")["environment"]
    assert environment["engine"] == "adjoint, compared with the reference on cpu"
    assert environment["kernels"] == "triton"


def test_only_what_is_alike_trains_together(tmp_path, splits):
    configs = _resolved(CONFIGS[:2])
    other = dataclasses.replace(configs[1], inner_steps=3)
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ValueError, match="inner_steps"):
        together.train_together([configs[0], other], folders, splits, device="cpu")
    anil = dataclasses.replace(configs[0], method="anil")
    with pytest.raises(ValueError, match="anil"):
        together.train_together([anil], folders[:1], splits, device="cpu")
    assert not list(tmp_path.iterdir())


def test_no_more_is_drawn_ahead_than_a_check_and_a_stretch(splits, monkeypatch):
    asked, config = [], _resolved(CONFIGS)[0]
    monkeypatch.setattr(drawing, "_draw", lambda sizes, seed, stream, *_: asked.append(stream))
    monkeypatch.setattr(torch, "stack", len)
    with ThreadPoolExecutor(1) as pool:
        stretches = drawing.stretches_of([config], 0)
        drawn = drawing.drawn(pool, [config], splits, stretches)
        for i, _ in enumerate(drawn):
            pool.submit(int).result()  # whatever was asked for before is drawn
            assert i < len(asked) <= i + 1 + drawing.AHEAD
    # 0 to 2, to 3, which a network is kept at, to 4, 6 and 7; no check at 3
    assert asked == ["train", "val", "train", "train", "val", "train", "val", "train", "val"]
