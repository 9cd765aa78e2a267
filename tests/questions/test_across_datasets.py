"""Notebook 6's tables against those of one data set at a time."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from negmeta_utils.evaluation import evaluate_features
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.plots.style import LABELS
from negmeta_utils.questions.across_datasets import (
    by_dataset,
    changes_by_dataset,
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
    assert list(found) == ["b", "a"]
    assert found["b"] == [b, b_again]


def test_rates_are_table_1_of_each_data_set(run):
    other = renamed(run, dataset="other")
    table = rates_by_dataset([run, other])
    assert table["dataset"].unique().tolist() == ["mini-imagenet", "other"]
    expected = table_1(run.rates())
    found = table[table["dataset"] == "other"].drop(columns="dataset").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_a_data_set_without_learned_rates_is_named(run):
    with pytest.raises(ValueError, match="none of meta-sgd on mini-imagenet"):
        rates_by_dataset([renamed(run, method="maml")])


def test_features_and_changes_are_those_of_each_run(run, images, tiny_data):
    maml = renamed(run, method="maml")
    table = features_by_dataset([run, maml], str(tiny_data), torch.device("cpu"), 4, 1)
    expected = evaluate_features(run, images, 4, 1)
    of_run = table[table["method"] == "meta-sgd"].drop(columns="dataset")
    pd.testing.assert_frame_equal(of_run.reset_index(drop=True), expected)
    changes = changes_by_dataset(table, LABELS)
    assert list(changes) == ["on-task change", "off-task change"]
    off_task = changes["off-task change"].set_index("condition")
    assert {f"mini-imagenet: {LABELS[m]}" for m in ("maml", "meta-sgd")} <= set(off_task.index)
    row = off_task.loc[f"mini-imagenet: {LABELS['meta-sgd']}"]
    difference = (expected["other_after"] - expected["other_before"]).mean()
    assert row["points"] == pytest.approx(100 * difference)
