"""Cells and columns of a report's tables."""

import numpy as np
import pytest
from markupsafe import Markup, escape

from negmeta_utils.studies.report_tables import as_text, heading


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("p networks", 9.9e-100, "< 0.0001"),
        ("Holm methods", 0.05568, "0.056"),
        ("points", -0.00123456, "−0.001235"),
        ("points", 2.5e-7, "0.00000025"),
        ("n_seeds", np.inf, "more episodes needed"),
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


def test_only_known_columns_hold_markup():
    assert heading("d_z") == Markup("d<sub>z</sub>")
    assert escape(heading("<b>")) == "&lt;b&gt;"
