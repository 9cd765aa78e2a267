"""Figures show what is in their tables, and come out the same from the same tables."""

import html
import inspect
import os
import subprocess
import sys

import every_figure
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1
from negmeta_utils.evidence.quantities import PAPER_CHANGES, accuracies, effect_sizes
from negmeta_utils.model import LAYERS
from negmeta_utils.plots import evidence, learned_rates, paper, questions, style, theory


@pytest.fixture(autouse=True)
def one_style():
    style.set_style()
    yield
    plt.close("all")


@pytest.fixture
def features():
    return every_figure.feature_table()


def test_figure_6_colours_exactly_the_negative_rates():
    generator = np.random.default_rng(0)
    rates = pd.DataFrame(
        {"layer": np.repeat(LAYERS, 1000), "rate": generator.normal(-0.01, 0.02, 5000)}
    )
    figure = learned_rates.rates_histogram(rates, initial=0.01)
    for axis, layer in zip(figure.axes, LAYERS, strict=True):
        values = rates.loc[rates["layer"] == layer, "rate"]
        negative = [
            bar for bar in axis.patches if np.allclose(bar.get_facecolor()[:3], style.NEGATIVE)
        ]
        assert sum(bar.get_height() for bar in negative) == (values < 0).sum()
        bars = [bar for bar in axis.patches if bar.get_alpha() is None]  # no band of the paper's
        assert sum(bar.get_height() for bar in bars) == 1000
        assert f"{100 * (values < 0).mean():.0f} % negative" in axis.get_title()


def test_figure_7_has_a_point_for_every_method_and_measure(features):
    table = accuracies(features)
    (axis,) = paper.feature_accuracy(table).axes
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
    (axis,) = paper.training_curves(history, 0.2, "fomaml").axes
    training, validation = axis.lines[:2]
    assert training.get_alpha() != validation.get_alpha()  # and not their colour, the method's
    assert training.get_ydata()[39] == pytest.approx(100 * np.arange(40).mean() / 800)
    assert validation.get_xydata().tolist() == [[400, 30]]


def test_changes_are_drawn_with_their_intervals_and_the_papers_numbers(features):
    effects = effect_sizes(features)
    wanted = effects["quantity"].isin(["on-task change", "off-task change"])
    of_methods = effects["method"].isin(["maml", "meta-sgd"])
    figure = paper.feature_changes(effects[wanted & of_methods], PAPER_CHANGES)
    assert [axis.get_title() for axis in figure.axes] == ["on-task change", "off-task change"]
    drawn = {round(x, 6) for line in figure.axes[1].lines for x in line.get_xdata()}
    off = effects[(effects["quantity"] == "off-task change") & of_methods]
    for value in [*off["low"], *off["high"], *off["points"], *PAPER_CHANGES["points"]]:
        assert round(value, 6) in drawn


def test_one_seed_has_no_interval_over_seeds_and_no_mark_for_one(features):
    effects = effect_sizes(features[features["seed"] == features["seed"].min()])
    changed = effects[effects["quantity"] == "off-task change"]
    figure = paper.feature_changes(changed, PAPER_CHANGES)
    assert "s" not in [line.get_marker() for line in figure.axes[0].lines]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "95 % over pairs of tasks: these networks",
        style.THEIRS,
    ]


def test_a_cross_that_is_not_drawn_has_no_place_in_the_legend(features):
    effects = effect_sizes(features)
    positive = effects[effects["method"] == "maml"].assign(method="meta-sgd-positive")
    for table, quantity in ((positive, "off-task change"), (effects, "on-task change")):
        figure = paper.feature_changes(table[table["quantity"] == quantity], PAPER_CHANGES)
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(texts) == 2 and style.THEIRS not in texts


def test_figure_7_has_numbers_only_where_they_can_be_read(features):
    table = accuracies(features)
    few, names = paper.feature_accuracy(table), list(style.LABELS)[:6]
    many = paper.feature_accuracy(
        pd.concat(table[table["method"] == "maml"].assign(method=name) for name in names)
    )
    assert (len(few.axes[0].texts), len(many.axes[0].texts)) == (10, 0)
    assert many.get_size_inches()[0] < 12


def test_bands_say_what_they_are():
    titles = [
        every_figure.FIGURES[name]().legends[0].get_title().get_text()
        for name in ("over_steps", "by_layer")
    ]
    assert titles == [
        "band, 95 % over seeds and episodes:",
        f"{questions.OWN_SCALES}; band: range over seeds",
    ]


def test_files_are_the_same_bytes_from_the_same_tables(tmp_path):
    """And from a process of its own, which hashes strings differently, at another time."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    subprocess.run(
        [sys.executable, every_figure.__file__, str(there)],
        env={**os.environ, "PYTHONHASHSEED": "1"}, check=True,
    )  # fmt: skip
    every_figure.save_all(here)
    files = sorted(path.name for path in here.iterdir())
    assert files == sorted(f"{n}.{s}" for n in every_figure.FIGURES for s in ("png", "svg"))
    for name in files:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def means_along(points):
    """The line of mean rates of networks (seed, update) whose rates are seed + update."""
    columns = ["q05", "q25", "mean", "q75", "q95"]
    rows = [
        {"layer": layer, "update": update, "seed": seed} | dict.fromkeys(columns, seed + update)
        for layer in LAYERS
        for seed, update in points
    ]
    along = learned_rates.rates_over_training(pd.DataFrame(rows)).axes[len(LAYERS)]
    return along.get_lines()[0].get_xydata().tolist()


def test_means_over_seeds_end_where_the_first_of_them_does():
    """Else a line would jump where one drops out."""
    points = [(0, 0), (0, 50), (0, 100), (1, 0), (1, 50)]
    of_two_networks = (0, 50)  # of one training, which counts once
    assert means_along([*points, of_two_networks]) == [[0, 0.5], [50, 50.5]]
    of_two = [
        ("maml", seed, pd.DataFrame({"update": [1, 2], "val_accuracy": [0.2, value]}))
        for seed, value in ((0, 0.4), (1, np.nan))
    ]
    (axis,) = paper.training_curves_of_several(of_two).axes
    (mean,) = (line for line in axis.get_lines() if "mean of 2" in line.get_label())
    assert mean.get_xdata().tolist() == [1]


def test_an_imported_network_has_no_place_along_training():
    assert means_along([(0, 0), (0, 60), (-7, 1)]) == [[0, 0], [60, 60]]
    assert means_along([(-7, 1)]) == [[1, -6]]
    assert means_along([(-7, 1), (3, 50)]) == [[1, -6], [50, 53]], "no meta-update that both have"


def test_networks_kept_along_the_way_have_marks_of_their_own():
    names = ["maml", "maml@best", "meta-sgd", "meta-sgd@best", "meta-sgd@20000", "maml@end"]
    assert list(style.markers(names).values()) == ["o", "D", "o", "D", "s", "o"]


def test_a_line_that_the_first_panel_lacks_is_in_the_legend():
    table = pd.DataFrame({"line": "one step", "x": [0, 1], "points": 0.0, "low": -1.0, "high": 1.0})
    more = pd.concat([table, table.assign(line="ten steps")])
    (legend,) = questions.over_steps({"MAML": table, "Meta-SGD": more}, "steps").legends
    assert [text.get_text() for text in legend.get_texts()] == ["one step", "ten steps"]


def test_every_figure_is_among_those_compared():
    drawing = {
        name
        for module in (paper, learned_rates, questions, evidence, theory)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and function.__annotations__.get("return") is Figure
    }
    assert drawing == set(every_figure.FIGURES)


def test_a_saved_figure_says_what_it_shows(tmp_path):
    style.save(every_figure.FIGURES["rates_histogram"](), tmp_path, "figure6")
    with Image.open(tmp_path / "figure6.png") as image:
        words = image.info["Description"]
    for said in ("conv1 ", "% negative", "Across: learned rate.", "mean; start of training;"):
        assert said in words
    assert words in html.unescape((tmp_path / "figure6.svg").read_text())


def distances(colours, kind):
    """Differences [n, n] between colours as seen with one kind of colour blindness: Machado et al.
    2009 for what is seen, CAM02-UCS for how different it is."""
    seen = np.array([to_rgb(colour) for colour in colours])
    if kind != "none":
        space = {"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100}
        seen = cspace_convert(seen, space, "sRGB1").clip(0, 1)
    seen = cspace_convert(seen, "sRGB1", "CAM02-UCS")
    return np.linalg.norm(seen[:, None] - seen, axis=-1)


@pytest.mark.parametrize("kind", ["none", "deuteranomaly", "protanomaly", "tritanomaly"])
def test_colours_differ_for_the_colour_blind(kind):
    between = distances(style.COLOURS.values(), kind)[np.triu_indices(len(style.COLOURS), 1)]
    assert between.min() >= 20
    verdicts = [style.NEGATIVE, style.POSITIVE, style.ABOVE]
    assert distances(verdicts, kind)[np.triu_indices(3, 1)].min() >= 20
    red_and_green = distances(["tab:red", "tab:green"], "deuteranomaly")[0, 1]
    assert red_and_green < 20, "the measure sees what the colour-blind do not"


@pytest.mark.parametrize("channels", [1, 3])
def test_an_episode_shows_every_image_once_and_frames_the_support(channels):
    images = np.random.default_rng(0).random((5, 6, channels, 8, 8))
    (axis,) = paper.episode_pictures(images[:, :2], images[:, 2:], list("abcd$")).axes
    shown = axis.get_images()[0].get_array().reshape(5 * 9 - 1, 6 * 9 - 1, channels)
    for row, column in np.ndindex(5, 6):
        here = shown[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
        assert np.array_equal(here, images[row, column].transpose(1, 2, 0))
    assert [text.get_text() for text in axis.get_yticklabels()] == list("abcd$")
    assert axis.get_yticks().tolist() == [3.5, 12.5, 21.5, 30.5, 39.5]
    framed = {(frame.get_x(), frame.get_y()) for frame in axis.patches}
    assert framed == {(9 * column - 0.5, 9 * row - 0.5) for row in range(5) for column in range(2)}
    assert [text.get_text() for text in axis.texts] == ["support", "query"]


def levels(axis):
    """Values of the horizontal and vertical lines that cross the whole of `axis`."""
    flat = [{*line.get_ydata()} for line in axis.lines if list(line.get_xdata()) == [0, 1]]
    upright = [{*line.get_xdata()} for line in axis.lines if list(line.get_ydata()) == [0, 1]]
    return {value for values in flat + upright for value in values}


def test_the_papers_values_stand_beside_ours(features):
    (figure5,) = paper.training_curves(every_figure.history(), 0.2, "maml").axes
    assert 46 in levels(figure5) and 47 not in levels(figure5)
    several = every_figure.FIGURES["training_curves_of_several"]().axes[0]
    assert {46, 47} <= levels(several)
    figure6 = every_figure.FIGURES["rates_histogram"]().axes
    along = every_figure.FIGURES["rates_over_training"]().axes[len(LAYERS) :]
    for axis, below, mean in zip(figure6, along, PAPER_TABLE_1["paper mean"], strict=True):
        assert mean in levels(axis) and mean in levels(below)
    figure7 = paper.feature_accuracy(accuracies(features)).axes[0]
    crosses = [line.get_ydata()[0] for line in figure7.lines if line.get_marker() == "x"]
    assert crosses == [46, 47]


def test_other_layers_have_no_values_of_the_paper():
    rates = pd.DataFrame({"layer": ["block1"] * 9, "rate": np.linspace(-0.1, 0.1, 9)})
    figure = learned_rates.rates_histogram(rates, initial=None)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["negative rates", "the others", "mean"]


def test_panels_that_are_compared_have_one_scale():
    for name in ("rates_histogram", "conditions", "feature_changes", "intervals_compared"):
        panels = [axis for axis in every_figure.FIGURES[name]().axes if axis.get_visible()]
        assert len({axis.get_xlim() for axis in panels}) == 1, name
    above = every_figure.FIGURES["rates_over_training"]().axes[: len(LAYERS)]
    assert len({axis.get_ylim() for axis in above}) == 1


def test_titles_do_not_touch_however_many_layers_and_long_their_names():
    names = [f"block{i}.branch{j}.convolution" for i in range(3) for j in range(4)]
    rates = pd.DataFrame({"layer": np.repeat(names, 9), "rate": [*np.linspace(-0.1, 0.1, 9)] * 12})
    figure = learned_rates.rates_histogram(rates, initial=0.01)
    figure.canvas.draw()
    boxes = [axis.title.get_window_extent() for axis in figure.axes if axis.get_visible()]
    for number, box in enumerate(boxes):
        assert not any(box.expanded(1.05, 1).overlaps(other) for other in boxes[number + 1 :])


def test_colours_of_verdicts_have_a_legend():
    (legend,) = every_figure.FIGURES["conditions"]().legends
    assert legend.get_title().get_text() == "interval, 95 % over seeds and episodes:"
    texts = [text.get_text() for text in legend.get_texts()]
    margin = "±0.1 points, for intervals of 90 %"
    assert texts == ["above zero", "contains zero", margin]


def test_a_layer_without_a_measure_is_a_gap():
    rows = [("maml", "on-task", "conv1", 0, 0.5), ("maml", "on-task", "conv2", 0, np.nan)]
    table = pd.DataFrame(rows, columns=["method", "task", "layer", "seed", "ratio"])
    (axis,) = questions.by_layer(table, {"ratio": "variance ratio"}).axes
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [0.5, np.nan])


def test_the_margin_stands_on_both_sides_of_zero():
    for axis in every_figure.FIGURES["conditions"]().axes:
        assert {-0.1, 0, 0.1} <= levels(axis)
