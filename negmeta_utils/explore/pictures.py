"""The pictures of notebook 0. Axes stay where they are while a slider moves: every limit comes
from all positions of the slider together, but for the height of a histogram."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter

from negmeta_utils.evidence.words import signed
from negmeta_utils.explore.measures import CONDITIONS, Answers, LayerRates, Steps, count_flips
from negmeta_utils.plots.learned_rates import bins_about_zero
from negmeta_utils.plots.paper import class_name
from negmeta_utils.plots.style import NEGATIVE, PALETTE, POSITIVE

# One colour and one mark a class: either alone would do.
_CLASS_COLOURS = [PALETTE[i] for i in (0, 1, 2, 4, 5, 6, 8, 9)]
_CLASS_MARKS = "osD^vP<>"
_RIGHT, _WRONG = "#e3ecf5", PALETTE[3]
WIDTH = 9.5  # inches: a hundred pixels each beside an open file browser on a laptop


def rates_picture(table: pd.DataFrame, rates: LayerRates, layer: str, kept: int) -> Figure:
    """Rates of all layers along training above; below, the chosen layer's histogram and every
    rate of its weights at the update `rates.updates[kept]`.

    table: as `summarise_rates` gives, of one run. The rows of the heat map are always in the order
    of their means at the end of training.
    """
    table = table[table["group"] == "weights+bias"]
    layers = list(dict.fromkeys(table["layer"]))
    rows = math.ceil(len(layers) / 5)
    figure = Figure(figsize=(WIDTH, 3.7 + 1.8 * rows))
    grid = figure.add_gridspec(
        rows + 1, 5, left=0.1, right=0.98, top=0.94, bottom=0.1, hspace=0.5, wspace=0.3,
        height_ratios=(*[1] * rows, 1.5),
    )  # fmt: skip
    update = int(rates.updates[kept])
    for number, name in enumerate(layers):
        above = figure.axes[0] if number else None  # one scale for all layers
        axis = figure.add_subplot(grid[number // 5, number % 5], sharex=above, sharey=above)
        _band(axis, table[table["layer"] == name], update)
        axis.tick_params(labelleft=number % 5 == 0)
        axis.set_title(name, fontweight="bold" if name == layer else "normal")
    figure.axes[0].set_ylabel("mean, middle\n50 % and 90 %")
    figure.axes[5 * (rows - 1) + (len(layers) - 1) % 5 // 2].set_xlabel("meta-update")
    below = grid[rows, :].subgridspec(1, 2, width_ratios=(2, 3.2), wspace=0.22)
    _histogram(figure.add_subplot(below[0]), rates.values, kept, f"{layer} at {update:,}")
    _heat_map(figure.add_subplot(below[1]), rates.filters, kept, layer, layer == layers[-1])
    return figure


def _band(axis: Axes, rows: pd.DataFrame, update: int) -> None:
    for low, high, alpha in (("q05", "q95", 0.2), ("q25", "q75", 0.35)):
        axis.fill_between(
            rows["update"], rows[low], rows[high], color=PALETTE[1], alpha=alpha, lw=0
        )
    axis.plot(rows["update"], rows["mean"], color=PALETTE[1])
    axis.axhline(0, color="black", lw=1)
    axis.axvline(update, color="black", lw=1, ls="--")
    axis.margins(x=0.03)
    axis.locator_params(nbins=4)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _histogram(axis: Axes, values: np.ndarray, kept: int, title: str) -> None:
    bins, now = bins_about_zero(*np.quantile(values, (0.001, 0.999))), values[kept]
    counts = np.histogram(now.clip(bins[0], bins[-1]), bins)[0]
    zero = np.flatnonzero(bins == 0)[0]
    axis.stairs(counts[:zero], bins[: zero + 1], fill=True, color=NEGATIVE)
    axis.stairs(counts[zero:], bins[zero:], fill=True, color=POSITIVE)
    axis.axvline(now.mean(), color="black", lw=1.3)
    margin = 0.03 * (bins[-1] - bins[0])
    axis.set(xlim=(bins[0] - margin, bins[-1] + margin), ylim=(0, 1.08 * counts.max()))
    axis.locator_params(axis="x", nbins=5)
    axis.set(xlabel="rate", ylabel="parameters")
    share = f"{100 * np.mean(now < 0):.0f} % negative"
    axis.set_title(f"{title}: {share}, mean {signed(now.mean(), 4)}")


def _heat_map(axis: Axes, filters: np.ndarray, kept: int, layer: str, is_head: bool) -> None:
    order = filters[-1].mean(1).argsort()[::-1]
    reach = _reach(filters)
    picture = axis.imshow(
        filters[kept][order], cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    axis.set(
        title=f"{layer}: every weight's rate",
        xlabel="feature" if is_head else "input channel × kernel position",
        ylabel=f"{'class' if is_head else 'filter'}, by mean at the end",
    )
    axis.grid(False)
    axis.figure.colorbar(picture, ax=axis, pad=0.02, label="learned rate")


def _reach(values: np.ndarray) -> float:
    """Largest magnitude to show, over all updates: a little more than nearly all of them have."""
    return 1.1 * max(float(np.quantile(np.abs(values), 0.998)), 1e-6)


def answers_picture(of: dict[str, Answers]) -> Figure:
    """One episode: a row a class; under every query image three tiles with what the prototypes
    answer before adaptation, on-task and off-task. A right answer is pale, a wrong one bears the
    number of the class answered, and one that flipped since before is framed.

    of: the answers of one network, or of several to the same episode, by their names. Each has a
    row of tiles, marked A, B, ... where there are several.
    """
    answers = next(iter(of.values()))
    n_way, n_shot, _, side, _ = answers.support.shape
    mosaic, corners = _mosaic(answers.support, answers.query, len(of))
    height, width = mosaic.shape[:2]
    inches, above = 0.8 * WIDTH * height / width, 0.4 + 0.3 * len(of)
    whole = 0.5 + inches + above
    figure = Figure(figsize=(WIDTH, whole))
    axis = figure.add_axes((0.19, 0.5 / whole, 0.8, inches / whole))
    axis.imshow(mosaic, interpolation="nearest", aspect="auto")
    axis.axis("off")
    for number, (name, own) in enumerate(of.items()):
        down = side + 1 + number * (side // 3 + 2)
        _tiles(axis, own.table, corners[:, n_shot:].reshape(-1, 2) + (0, down), side / 3)
        score, letter = _score(own.table), chr(ord("A") + number)
        if len(of) > 1:
            score = f"{letter}  {name}    {score}"
            for y in corners[:, n_shot, 1] + down + side / 6:
                axis.text(corners[0, n_shot, 0] - 0.15 * side, y, letter, ha="right", va="center")
        figure.text(0.01, 1 - 0.3 * (number + 1) / whole, score, fontsize=9)
    for row, name in enumerate(answers.class_names):
        y = corners[row, 0, 1] + side / 2
        short = class_name(name)
        axis.text(-0.5 * side, y, short, ha="right", va="center", fontsize=9, parse_math=False)
        axis.text(-0.2 * side, y, str(row + 1), ha="center", va="center", fontweight="bold")
    for column, text in ((0, "support"), (n_shot, "query")):
        axis.text(corners[0, column, 0], -0.12 * side, text, fontsize=9)
    key = [
        Patch(fc=_RIGHT, label="right"),
        Patch(fc=_WRONG, label="wrong, with the class answered"),
        Patch(fc="none", ec="black", lw=1.5, label="flipped since before"),
    ]
    figure.legend(handles=key, ncols=3, loc="lower right", frameon=False, fontsize=9)
    figure.text(0.19, 0.17 / whole, f"tiles: {', '.join(CONDITIONS)}", fontsize=9)
    return figure


def _mosaic(
    support: np.ndarray, query: np.ndarray, rows_of_tiles: int
) -> tuple[np.ndarray, np.ndarray]:
    """All images on one white canvas [height, width, 3], which draws far faster than an axis each;
    and the upper left corner (x, y) of each, [n_way, n_shot + n_query, 2]."""
    images = np.concatenate([support, query], axis=1)
    n_way, columns, _, side, _ = images.shape
    x = (
        np.arange(columns) * (side + side // 6)
        + (np.arange(columns) >= support.shape[1]) * side // 3
    )
    below = rows_of_tiles * (side // 3 + 2)
    y = np.arange(n_way) * (side + below + side // 4)
    canvas = np.ones((y[-1] + side + below, x[-1] + side + 1, 3))
    for row in range(n_way):
        for column in range(columns):
            place = canvas[y[row] : y[row] + side, x[column] : x[column] + side]
            place[:] = images[row, column].transpose(1, 2, 0)
    return canvas, np.stack(np.meshgrid(x, y), axis=-1)


def _tiles(axis: Axes, table: pd.DataFrame, corners: np.ndarray, wide: float) -> None:
    """Three tiles of width `wide` for each query image, from its place in `corners` on."""
    tiles, colours, frames = [], [], []
    for (x, y), row in zip(corners, table.to_dict("records"), strict=True):
        for number, condition in enumerate(CONDITIONS):
            at = (x - 0.5 + number * wide, y - 0.5)
            tiles.append(Rectangle(at, wide, wide))
            right = row[condition] == row["label"]
            colours.append(_RIGHT if right else _WRONG)
            if row[condition] != row["before"]:
                frames.append(Rectangle((at[0] + 0.6, at[1] + 0.6), wide - 1.2, wide - 1.2))
            if not right:
                middle = (at[0] + wide / 2, at[1] + wide / 2)
                axis.annotate(
                    row[condition] + 1, middle, ha="center", va="center_baseline", fontsize=8
                )
    axis.add_collection(PatchCollection(tiles, fc=colours, ec="white", lw=1))
    axis.add_collection(PatchCollection(frames, fc="none", ec="black", lw=1.5))


def _score(table: pd.DataFrame) -> str:
    parts = []
    for row in count_flips(table).itertuples():
        text = f"{row.condition}: {100 * row.right:.0f} % right"
        if row.flipped:
            better, worse = round(len(table) * row.to_right), round(len(table) * row.to_wrong)
            text += f" ({better} to right, {worse} to wrong)"
        parts.append(text)
    return "    ".join(parts)


def steps_picture(steps: Steps, step: int, trained_steps: int) -> Figure:
    """Losses and accuracies along one task's adaptation, and where its embeddings are at `step`,
    with the way they came. A filled mark is a query image that the adapted model answers right,
    a hollow one wrong; large marks are support images.

    trained_steps: how many inner steps training used, marked in the curves.
    """
    figure = Figure(figsize=(WIDTH, 4.7))
    grid = figure.add_gridspec(
        2, 2, left=0.07, right=0.98, top=0.93, bottom=0.17, hspace=0.3, wspace=0.22,
        width_ratios=(1, 1.6),
    )  # fmt: skip
    loss, accuracy = (figure.add_subplot(grid[row, 0]) for row in (0, 1))
    for axis, columns in (
        (loss, {"query_loss": "query", "support_loss": "support"}),
        (accuracy, {"accuracy": "adapted model", "prototype_accuracy": "prototypes"}),
    ):
        scale = 100 if axis is accuracy else 1
        _curves(axis, steps.curves, columns, step, scale)
        axis.axvline(trained_steps, color="grey", lw=1, ls=":")
    loss.set(ylabel="loss")
    accuracy.set(
        ylabel="query accuracy (%)", xlabel=f"inner step (dotted: {trained_steps}, as trained)"
    )
    _places(figure.add_subplot(grid[:, 1]), steps, step)
    return figure


def _curves(
    axis: Axes, curves: pd.DataFrame, columns: dict[str, str], step: int, scale: float
) -> None:
    for number, (column, label) in enumerate(columns.items()):
        values = scale * curves[column]
        style = "-" if number == 0 else "--"
        axis.plot(curves["step"], values, style, color=PALETTE[number], label=label)
        axis.plot(step, values[step], "o", color=PALETTE[number])
    axis.legend(frameon=False, fontsize=9)


def _places(axis: Axes, steps: Steps, step: int) -> None:
    n_support = len(steps.labels) - steps.answers.shape[1]
    right = np.concatenate(
        [np.ones(n_support, bool), steps.answers[step] == steps.labels[n_support:]]
    )
    is_support = np.arange(len(steps.labels)) < n_support
    for label in np.unique(steps.labels):
        colour, mark = _CLASS_COLOURS[label % 8], _CLASS_MARKS[label % 8]
        of_class = steps.labels == label
        ways = steps.places[: step + 1, of_class].swapaxes(0, 1)
        axis.add_collection(LineCollection(list(ways), color=colour, lw=0.9, alpha=0.6))
        for group, size, face in (
            (of_class & is_support, 13, colour),
            (of_class & ~is_support & right, 6, colour),
            (of_class & ~is_support & ~right, 6, "white"),
        ):
            axis.plot(
                *steps.places[step, group].T, mark, ms=size, mfc=face, color=colour,
                mec="black" if size > 6 else colour,
            )  # fmt: skip
    low, high = steps.places.min((0, 1)), steps.places.max((0, 1))
    margin = 0.06 * (high - low)
    axis.set(xlim=(low[0] - margin[0], high[0] + margin[0]))
    axis.set(ylim=(low[1] - margin[1], high[1] + margin[1]))
    share = f"plane shows {100 * steps.explained:.0f} % of variance"
    axis.set(title=f"embeddings after step {step} ({share})")
    axis.set(xlabel="first principal component", ylabel="second")
    grey: dict[str, Any] = {"color": "grey", "marker": "o", "ls": ""}
    key = [
        Line2D([], [], **grey, ms=11, mec="black", label="support"),
        Line2D([], [], **grey, ms=6, label="query, right"),
        Line2D([], [], **grey, ms=6, mfc="white", label="query, wrong"),
    ]
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 3}
    axis.legend(handles=key, frameon=False, fontsize=9, **below)
