"""Cells and columns of a report's tables."""

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup, escape

from negmeta_utils.studies.report_tables import SPECIAL, as_text, heading, readable


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("p networks", 9.9e-100, "< 0.0001"),
        ("Holm methods", 0.05568, "0.056"),
        ("points", -0.00123456, "−0.001235"),
        ("points", 2.5e-7, "0.00000025"),
        ("n_seeds", np.inf, "more episodes needed"),
        ("distance", np.inf, "∞"),
        ("high", 10594.0, "10,594"),
        ("n_episodes", np.int64(40_000), "40,000"),
        ("power", np.nan, "–"),
        ("method", "meta-sgd - maml", "Meta-SGD − MAML"),
        ("method", "of-my-own", "of-my-own"),
        ("dataset", "mini-imagenet", "Mini-ImageNet"),
        ("layer", "conv4", "conv4"),
        ("reading", "off-task - on-task", "off-task − on-task"),
    ],
)
def test_a_cell_is_to_be_read(column, value, text):
    assert as_text(column, value) == text


def test_a_column_may_hold_something_else_in_one_table():
    table = pd.DataFrame({"rates": ["negative set to zero"], "p_value": [0.01], "points": [0.0]})
    plain, special = (
        dict(readable("a table", table, None, SPECIAL.get(key))["meanings"])
        for key in (("02_alpha_distribution", "table1"), ("05_mechanism", "equivalence"))
    )
    assert plain["rates"] == "number of rates" and "two-sided" in plain["p"]
    assert special["rates"] == "what is done to the learned rates"
    assert "0.1 points or more" in special["p"] and special["points"] == plain["points"]


def test_only_known_columns_hold_markup():
    assert heading("d_z") == Markup("d<sub>z</sub>")
    assert escape(heading("<b>")) == "&lt;b&gt;"
