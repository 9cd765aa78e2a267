"""Figures show what is in their tables, and come out the same from the same tables."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from negmeta_utils import figures
from negmeta_utils.statistics import PAPER_CHANGES, accuracies, effect_sizes


@pytest.fixture(autouse=True)
def style():
    figures.set_style()
    yield
    plt.close("all")


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    names = ["same_before", "same_after", "other_before", "other_after", "ordinary"]
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "episode": e, **dict(zip(names, row, strict=True))}
            for method in ("maml", "meta-sgd")
            for seed in range(3)
            for e, row in enumerate(generator.uniform(0.4, 0.6, (40, 5)))
        ]
    )


def test_figure_6_colours_exactly_the_negative_rates():
    generator = np.random.default_rng(0)
    rates = pd.DataFrame(
        {"layer": np.repeat(figures.LAYERS, 1000), "rate": generator.normal(-0.01, 0.02, 5000)}
    )
    figure = figures.rates_histogram(rates, initial=0.01)
    for axis, layer in zip(figure.axes, figures.LAYERS, strict=True):
        values = rates.loc[rates["layer"] == layer, "rate"]
        negative = [
            bar for bar in axis.patches if np.allclose(bar.get_facecolor()[:3], figures.NEGATIVE)
        ]
        assert sum(bar.get_height() for bar in negative) == (values < 0).sum()
        assert sum(bar.get_height() for bar in axis.patches) == 1000
        assert f"{(values < 0).mean():.0%} negative" in axis.get_title()


def test_figure_7_has_a_point_for_every_method_and_measure(features):
    table = accuracies(features)
    (axis,) = figures.feature_accuracy(table).axes
    heights = np.concatenate([c.lines[0].get_ydata() for c in axis.containers])
    assert sorted(heights) == pytest.approx(sorted(table["mean"]))
    expected = 100 * features.loc[features["method"] == "maml", "other_after"].mean()
    row = table[(table["method"] == "maml") & (table["measure"] == "off-task")]
    assert row["mean"].item() == pytest.approx(expected)


def test_figure_5_smooths_over_the_papers_40_iterations():
    history = pd.DataFrame(
        {"update": range(1, 801), "train_accuracy": np.arange(800) / 800, "val_accuracy": np.nan}
    )
    history.loc[399, "val_accuracy"] = 0.3
    (axis,) = figures.training_curves(history, chance=0.2).axes
    training, validation = axis.lines[:2]
    assert training.get_ydata()[39] == pytest.approx(100 * np.arange(40).mean() / 800)
    assert validation.get_xydata().tolist() == [[400, 30]]


def test_changes_are_drawn_with_their_intervals_and_the_papers_numbers(features):
    effects = effect_sizes(features)
    wanted = effects["quantity"].isin(["on-task change", "off-task change"])
    of_methods = effects["method"].isin(["maml", "meta-sgd"])
    figure = figures.feature_changes(effects[wanted & of_methods], PAPER_CHANGES)
    assert [axis.get_title() for axis in figure.axes] == ["on-task change", "off-task change"]
    drawn = {round(x, 6) for line in figure.axes[1].lines for x in line.get_xdata()}
    off = effects[(effects["quantity"] == "off-task change") & of_methods]
    for value in [*off["low"], *off["high"], *off["points"], *PAPER_CHANGES["points"]]:
        assert round(value, 6) in drawn


def test_files_are_the_same_bytes_from_the_same_table(features, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        figures.save(figures.feature_accuracy(accuracies(features)), tmp_path / name, "figure7")
    for suffix in ("png", "svg"):
        first, second = ((tmp_path / n / f"figure7.{suffix}").read_bytes() for n in ("a", "b"))
        assert first == second


def test_an_episode_shows_every_image_once():
    support, query = np.zeros((5, 1, 3, 8, 8)), np.ones((5, 4, 3, 8, 8))
    figure = figures.episode_pictures(support, query, list("abcde"))
    assert len(figure.axes) == 25
    assert [axis.get_ylabel() for axis in figure.axes[::5]] == list("abcde")
