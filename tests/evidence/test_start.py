"""Networks whose rates start independently of the weights, minus those of `decide`
(`tools/start.py`)."""

import numpy as np
import pandas as pd
import pytest
import random_tables
import start
from answers import FIGURES
from scipy import stats

from negmeta_utils.evidence.learned_rates import WEIGHTS
from negmeta_utils.model import LAYERS
from negmeta_utils.storage.files import read_table


def last_rates(seeds, first_draw):
    rng = np.random.default_rng(first_draw)
    rows = [
        (seed, update, layer, WEIGHTS, rng.normal())
        for seed in seeds
        for update in (0, 100)
        for layer in LAYERS
    ]
    return pd.DataFrame(rows, columns=["seed", "update", "layer", "group", "mean"])


def test_mean_rates_are_compared_in_pairs_by_students_t():
    new, old = last_rates(range(3, 8), 1), last_rates(range(8), 2)
    found = start.means_apart(new, old).set_index("layer")
    assert list(found.index) == list(LAYERS)
    for layer in LAYERS:
        ours, theirs = (
            table[(table["layer"] == layer) & (table["update"] == 100) & (table["seed"] >= 3)]
            for table in (new, old)
        )
        tested = stats.ttest_rel(ours["mean"].to_numpy(), theirs["mean"].to_numpy())
        assert found.loc[layer, ["low", "high"]].tolist() == pytest.approx(
            list(tested.confidence_interval(0.95))
        )
        assert found.loc[layer, "minus"] == pytest.approx(
            found.loc[layer, "new"] - found.loc[layer, "old"]
        )


def test_changes_are_those_of_the_same_seeds_and_episodes():
    new, old = random_tables.table(3, methods=("meta-sgd",), seed=1), random_tables.table(5, seed=2)
    found = start.changes_apart(new, old).set_index(["quantity", "over"])
    both = new.merge(old, on=["method", "seed", "episode"], suffixes=("_new", "_old"))
    assert len(both) == len(new)
    for quantity, task in (("on-task change", "same"), ("off-task change", "other")):
        minus = sum(
            sign * (both[f"{task}_after_{of}"] - both[f"{task}_before_{of}"])
            for sign, of in ((1, "new"), (-1, "old"))
        )
        over_seeds = found.loc[(quantity, "seeds")]
        assert over_seeds["points"] == pytest.approx(100 * minus.mean()) and over_seeds["n"] == 3


def test_the_shipped_tables_are_computed_again():
    features, rates = (
        [read_table(FIGURES / of / name) for of in ("start", "decide")]
        for name in ("features/features.parquet", "alpha/rates.parquet")
    )
    shipped = [pd.read_csv(FIGURES / "start" / f"{of}_apart.csv") for of in ("changes", "means")]
    again = start.changes_apart(*features).reset_index(drop=True)
    pd.testing.assert_frame_equal(again, shipped[0])
    pd.testing.assert_frame_equal(start.means_apart(*rates), shipped[1], atol=1e-6, rtol=0)
