"""The figures of notebook 4 about inference show what is in their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from negmeta_utils.evidence.interval_methods import INTERVALS
from negmeta_utils.evidence.mixed_model import Components
from negmeta_utils.evidence.power import power
from negmeta_utils.plots import style
from negmeta_utils.plots.evidence import intervals_compared, power_curves


@pytest.fixture(autouse=True)
def one_style():
    style.set_style()
    yield
    plt.close("all")


def test_every_interval_is_drawn_with_its_misses():
    rows = [
        (quantity, name, place, place - 1.0, place + 2.0, place / 50)
        for quantity in ("on-task change", "off-task change")
        for place, name in enumerate(INTERVALS)
    ]
    columns = ["quantity", "interval", "mean", "low", "high", "misses"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["interval"] == "bootstrap", ["low", "high", "misses"]] = np.nan
    figure = intervals_compared(table)
    for axis in figure.axes:
        lines = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2]
        drawn = sorted(tuple(x) for x in lines if not np.isnan(x).any() and tuple(x) != (0, 0))
        assert drawn == [(p - 1.0, p + 2.0) for p in (0, 1, 2, 4, 5)]
        assert [text.get_text() for text in axis.texts] == [
            f"misses {2 * p} %" for p in (0, 1, 2, 4, 5)
        ]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        name for name in INTERVALS if name != "bootstrap"
    ]


def test_power_curves_have_a_line_for_every_number_of_episodes():
    components = Components(0.1, 1, 50)
    rows = [("maml", i, j, power(components, 0.3, i, j)) for j in (100, 9000) for i in (3, 9, 81)]
    table = pd.DataFrame(rows, columns=["method", "n_seeds", "n_episodes", "power"])
    (axis,) = power_curves(table.assign(effect=0.3), 0.8).axes
    few, many, wanted = axis.lines
    assert axis.get_title() == "MAML: 0.30 points off-task"
    assert [line.get_label() for line in (few, many)] == [
        "100 pairs of tasks", "9,000 pairs of tasks",
    ]  # fmt: skip
    assert list(many.get_ydata()) == [row[3] for row in rows[3:]]
    assert list(many.get_xdata()) == [3, 9, 81]
    assert set(wanted.get_ydata()) == {0.8}


def test_power_that_one_seed_leaves_unknown_is_an_empty_panel(tmp_path):
    table = pd.DataFrame({"method": "maml", "n_seeds": [3, 30], "n_episodes": 99, "power": np.nan})
    style.save(power_curves(table.assign(effect=0.3), 0.8), tmp_path, "power")
    assert (tmp_path / "power.png").is_file()
