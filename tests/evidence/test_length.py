"""Networks after 60,000 meta-updates, against the same after 20,000 (`tools/length.py`)."""

import length
import pandas as pd
import pytest
import random_tables
from answers import FIGURES


def test_each_network_is_compared_with_itself_on_the_same_episodes():
    short, long = random_tables.table(5, seed=1), random_tables.table(4, seed=2)
    shuffled = short.sample(frac=1, random_state=0, ignore_index=True)
    rows = length.measure(length.both_points(shuffled, long))
    rows = rows[rows["quantity"] == "off-task change"].set_index(["method", "condition"])
    both = short.merge(long, on=["method", "seed", "episode"], suffixes=("_20", "_60"))
    after = both["other_after_60"] - both["other_before_60"]
    gained = after - (both["other_after_20"] - both["other_before_20"])
    for method in ("maml", "meta-sgd"):
        own = both["method"] == method
        row = rows.loc[(method, "60,000")]
        assert row["seeds"] == 4 and row["points"] == pytest.approx(100 * after[own].mean())
        assert row["minus_base"] == pytest.approx(100 * gained[own].mean())
        assert row["minus_low"] < row["minus_base"] < row["minus_high"]


def test_a_method_without_networks_of_20000_is_left_out():
    short, long = random_tables.table(3, methods=("meta-sgd",)), random_tables.table(3)
    assert {method for method, _ in length.both_points(short, long)} == {"meta-sgd"}


def test_the_shipped_table_is_computed_again():
    shipped = pd.read_csv(FIGURES / "length" / "against-20000.csv", dtype={"needed_minus": str})
    again = length.measure(length.read(FIGURES / "length")).reset_index(drop=True)
    columns = ["method", "quantity", "condition", "verdict", "seeds", "episodes"]
    pd.testing.assert_frame_equal(again[columns], shipped[columns])
    numbers = ["points", "low", "high", "minus_base", "minus_low", "minus_high"]
    pd.testing.assert_frame_equal(again[numbers].astype(float), shipped[numbers])
