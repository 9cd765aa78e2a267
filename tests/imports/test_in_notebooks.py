"""Imported runs in the notebooks that take them, and in verdicts."""

import pytest
import torch
from in_process import execute
from oracles import Oracle, blocks, named

from negmeta_utils.evaluation import shared_test_images
from negmeta_utils.imports.importing import import_run
from negmeta_utils.storage.files import read_table

WIDTH = 4
SETTINGS = {"dataset": "glyphs", "image_size": 16, "n_query": 2, "inner_steps": 1}


def imported(folder, conv, norm, head, rates):
    """Two runs need two files, since a run's seed is made from its file's digest."""
    oracle = Oracle(blocks(1, WIDTH), WIDTH, named(conv, norm, head, 0 if rates else 1))
    state = oracle.state()
    if rates:  # in the order of parameters(), where normalisation comes first
        order = [f"features.{b}.{part}" for b in range(4) for part in ("normalize", "conv")]
        keys = [f"{part}.{kind}" for part in [*order, "classifier"] for kind in ("weight", "bias")]
        generator = torch.Generator().manual_seed(0)
        for n, key in enumerate(keys):
            state[f"lrs.{n}"] = 0.01 * torch.randn(state[key].shape, generator=generator)
    torch.save(state, folder / "theirs.pt")
    return import_run(folder / "theirs.pt", folder / "run", **SETTINGS)


@pytest.fixture(scope="module")
def meta_sgd(tmp_path_factory):
    keys = "features.{}.conv", "features.{}.normalize", "classifier"
    return imported(tmp_path_factory.mktemp("learn2learn"), *keys, rates=True)


@pytest.fixture(scope="module")
def maml(tmp_path_factory):
    keys = "conv{}.0", "conv{}.1", "logits"
    return imported(tmp_path_factory.mktemp("few-shot"), *keys, rates=False)


def test_notebooks_0_2_3_5_and_8_take_imported_runs(meta_sgd, maml, tmp_path):
    theirs, other = str(meta_sgd.directory), str(maml.directory)
    of_each = {
        "00_explore": {"runs": [theirs, other], "n_episodes": 2, "n_steps": 1},
        "02_alpha_distribution": {"runs": [theirs]},
        "03_feature_adaptation": {"runs": [theirs, other], "n_episodes": 2},
        "05_mechanism": {
            "runs": [theirs], "maml_runs": [other], "n_episodes": 2, "n_geometry": 1,
        },
        "08_test_time": {"runs": [theirs, other], "n_episodes": 2, "n_others": [1]},
    }  # fmt: skip
    for name, parameters in of_each.items():
        execute(name, {**parameters, "out_dir": str(tmp_path / name)})
    features = read_table(tmp_path / "03_feature_adaptation" / "features.parquet")
    seeds = {run.parameters["seed"] for run in (meta_sgd, maml)}
    assert set(features["seed"]) == seeds and all(seed < 0 for seed in seeds)
    rates = read_table(tmp_path / "02_alpha_distribution" / "rates.parquet")
    (row,) = rates[(rates["layer"] == "conv2") & (rates["group"] == "weights+bias")].itertuples()
    own = torch.cat([meta_sgd.alpha[f"conv2.{kind}"].flatten() for kind in ("weight", "bias")])
    assert row.mean == pytest.approx(float(own.mean()), rel=1e-5)
    answers = tmp_path / "05_mechanism" / "summary.md"
    assert "primary contrast" in answers.read_text()


def test_images_that_an_imported_network_does_not_take_are_named(meta_sgd, tmp_path):
    keys = named("conv{}.0", "conv{}.1", "logits")
    torch.save(Oracle(blocks(3, WIDTH), WIDTH, keys).state(), tmp_path / "theirs.pt")
    of_colours = import_run(tmp_path / "theirs.pt", tmp_path / "run", **SETTINGS)
    with pytest.raises(ValueError, match=r"run: network: conv4 .* no images of 1x16x16 \(") as told:
        shared_test_images([meta_sgd, of_colours], None)
    assert "\n" not in str(told.value)
