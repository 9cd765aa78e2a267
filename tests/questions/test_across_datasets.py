"""Notebook 6's tables against those of one data set at a time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils.evaluation import evaluate_features
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.plots.style import LABELS, NAMES
from negmeta_utils.plots.tables import shown
from negmeta_utils.questions.across_datasets import (
    between_backbones,
    by_dataset,
    changes_by_dataset,
    described,
    features_by_dataset,
    rates_by_dataset,
)


def renamed(run, **parameters):
    return replace(
        run, manifest=run.manifest | {"parameters": run.manifest["parameters"] | parameters}
    )


def test_runs_are_grouped_in_the_order_of_their_names(run):
    b, a, b_again = (renamed(run, dataset=name) for name in "bab")
    found = by_dataset([b, a, b_again])
    assert list(found) == [("b", "conv4"), ("a", "conv4")]
    assert found["b", "conv4"] == [b, b_again]


def test_a_run_without_a_test_has_no_accuracy(run, tmp_path):
    untested = renamed(replace(run, directory=tmp_path), test_episodes=0)  # there is no table
    table = described([run, renamed(untested, dataset="other")])
    assert table["test accuracy"].tolist()[0] == run.final_accuracy().mean()
    cells = shown(table, percent=("test accuracy",)).data["test accuracy"].tolist()
    assert cells[0].endswith(" %") and cells[1] == "–"


def test_rates_are_table_1_of_each_data_set(run):
    other = renamed(run, dataset="other")
    table = rates_by_dataset([run, other])
    assert table["dataset"].unique().tolist() == ["mini-imagenet", "other"]
    expected = table_1(run.rates())
    found = table[table["dataset"] == "other"].drop(columns=["dataset", "backbone", "sign"])
    found = found.reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_a_data_set_without_learned_rates_is_named(run):
    with pytest.raises(ValueError, match="none of meta-sgd on mini-imagenet"):
        rates_by_dataset([renamed(run, method="maml")])


def test_features_and_changes_are_those_of_each_run(run, images, tiny_data):
    maml = renamed(run, method="maml")
    table = features_by_dataset([run, maml], str(tiny_data), torch.device("cpu"), 4, 1)
    expected = evaluate_features(run, images, 4, 1)
    of_run = table[table["method"] == "meta-sgd"].drop(columns=["dataset", "backbone"])
    pd.testing.assert_frame_equal(of_run.reset_index(drop=True), expected)
    changes = changes_by_dataset(table, LABELS | NAMES)
    assert list(changes) == ["on-task change", "off-task change"]
    off_task = changes["off-task change"].set_index("condition")
    assert {f"Mini-ImageNet: {LABELS[m]}" for m in ("maml", "meta-sgd")} <= set(off_task.index)
    row = off_task.loc[f"Mini-ImageNet: {LABELS['meta-sgd']}"]
    difference = (expected["other_after"] - expected["other_before"]).mean()
    assert row["points"] == pytest.approx(100 * difference)


def test_a_backbone_is_set_against_the_first_one_in_pairs(run, images):
    table = evaluate_features(run, images, 6).assign(dataset="glyphs")
    generator = np.random.default_rng(0)

    def trained(backbone, seed, lift):
        after = table["other_before"] + lift + generator.normal(0, 0.01, len(table))
        return table.assign(backbone=backbone, seed=seed, other_after=after)

    lifts = {("conv4", 0): 0.0, ("conv4", 1): 0.1, ("wide", 0): 0.3, ("wide", 1): 0.5}
    features = pd.concat([trained(*key, lift) for key, lift in lifts.items()])
    found = between_backbones(features, LABELS | NAMES).set_index("quantity")
    change = (features["other_after"] - features["other_before"]).groupby(features["backbone"])
    row = found.loc["off-task change"]
    assert row["points"] == pytest.approx(100 * (change.mean()["wide"] - change.mean()["conv4"]))
    assert row["condition"] == f"glyphs, wide minus Conv4: {LABELS['meta-sgd']}"
    assert found.loc["on-task change", "verdict"] == "unchanged"
    assert between_backbones(features[features["backbone"] == "wide"], LABELS).empty


@pytest.mark.parametrize(
    ("means", "sign"),
    [((0.1, 0.2), "positive"), ((-0.1, -0.2), "negative"), ((0.1, -0.2), "mixed")],
)
def test_a_layer_has_a_sign_where_all_networks_agree(run, monkeypatch, means, sign):
    trained = [renamed(run, seed=seed) for seed in range(len(means))]
    tables = dict(zip(map(id, trained), means, strict=True))
    rates = type(run).rates

    def of_own(own):
        return rates(own).assign(mean=tables[id(own)], seed=own.parameters["seed"])

    monkeypatch.setattr(type(run), "rates", of_own)
    assert set(rates_by_dataset(trained)["sign"]) == {sign}
