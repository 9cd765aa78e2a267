"""Plots of notebooks 5 to 8 and 10, of conditions beside one another: tables in, figures out."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from negmeta_utils.evidence.contrasts import DOWN, UP
from negmeta_utils.plots.style import (
    ABOVE,
    COLOURS,
    LABELS,
    NEGATIVE,
    PALETTE,
    PAPER,
    POSITIVE,
    legend_below,
)

OWN_SCALES = "each panel on its own scale"
OVER_BOTH = "95 % over seeds and episodes"
# Which rates a table counts in a layer.
COUNTED = {"weights+bias": "weights and biases", "both": "with batch normalisation's"}
OF_RECIPES = "outer rate's schedule, where learned rates start, and their own outer rate:"
VERDICT_COLOURS = {UP: ABOVE, DOWN: NEGATIVE}


def conditions(
    tables: dict[str, pd.DataFrame],
    interval: str = OVER_BOTH,
    margin: float | None = None,
) -> Figure:
    """A row a condition and a panel a quantity, each with its interval; coloured where that leaves
    zero on one side. margin: on both sides of zero, dotted.

    tables: by panel title, as `contrasts.contrasts` gives, the same conditions in each. interval:
    what it is, in the legend; not where there is none, which is what one seed has.
    """
    names = list(next(iter(tables.values()))["condition"])
    size = (3.6 * len(tables) + 2, 0.36 * len(names) + 1.1)
    figure, axes = plt.subplots(
        1, len(tables), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axis, (title, table) in zip(axes[0], tables.items(), strict=True):
        for row in table.itertuples():
            colour = VERDICT_COLOURS.get(row.verdict, POSITIVE)
            place = names.index(row.condition)
            axis.plot([row.low, row.high], [place] * 2, color=colour, lw=2)
            axis.plot(row.points, place, "o", color=colour, ms=5)
        axis.axvline(0, color="black", lw=1)
        for side in (-margin, margin) if margin else ():
            axis.axvline(side, color=PAPER, ls=":", lw=1)
        axis.set(title=title, xlabel="percentage points", ylim=(len(names) - 0.5, -0.5))
    axes[0, 0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    _legend_of_verdicts(figure, pd.concat(tables.values()), interval, margin)
    return figure


def _have_intervals(tables: dict[str, pd.DataFrame]) -> bool:
    """One seed has none."""
    return any(table["low"].notna().any() for table in tables.values())


def _legend_of_verdicts(
    figure: Figure, rows: pd.DataFrame, interval: str, margin: float | None
) -> None:
    """What the colours of `conditions` mean, as far as they appear in its rows, and its dotted
    lines."""
    verdicts, without = set(rows["verdict"]), rows["low"].isna()
    meanings = {ABOVE: "above zero", NEGATIVE: "below zero", POSITIVE: "contains zero"}
    if without.all():
        meanings, interval = {POSITIVE: "no interval, undecided"}, ""
    elif without.any():
        meanings[POSITIVE] = "contains zero, or there is none"
    shown = {VERDICT_COLOURS.get(verdict, POSITIVE) for verdict in verdicts}
    keys = [
        plt.Line2D([], [], color=colour, ls="-" if interval else "", marker="o", ms=5, label=words)
        for colour, words in meanings.items()
        if colour in shown
    ]
    if margin:
        words = f"±{margin} points, for intervals of 90 %"
        keys.append(plt.Line2D([], [], color=PAPER, ls=":", lw=1, label=words))
    title = f"interval, {interval}:" if interval else None
    legend_below(figure, keys, 3, title)


def by_layer(table: pd.DataFrame, measures: dict[str, str]) -> Figure:
    """Measures of features by block, a line a method and task, with the range over seeds; each
    measure on a scale of its own.

    table: method, task, layer, seed and the columns of `measures`, whose values are panel titles.
    """
    figure, axes = _panels(len(measures), (3.9, 2.9))
    layers = list(dict.fromkeys(table["layer"]))
    for axis, (column, title) in zip(axes, measures.items(), strict=True):
        for (method, task), rows in table.groupby(["method", "task"]):
            # Every layer, also where the measure is undefined for all seeds (features all zero).
            by_seed = rows.pivot_table(index="layer", columns="seed", values=column).reindex(layers)
            line = "-" if task == "on-task" else "--"
            label = f"{LABELS[method]}, {task}"
            axis.plot(layers, by_seed.mean(axis=1), line, marker="o", ms=4, color=COLOURS[method],
                      label=label)  # fmt: skip
            low, high = by_seed.min(axis=1), by_seed.max(axis=1)
            axis.fill_between(layers, low, high, color=COLOURS[method], alpha=0.15, lw=0)
        axis.set(title=title)
    figure.tight_layout()
    legend_below(
        figure,
        axes[0].get_legend_handles_labels()[0],
        title=f"{OWN_SCALES}; band: range over seeds",
    )
    return figure


def _panels(number: int, size: tuple[float, float], **shared) -> tuple[Figure, list[plt.Axes]]:
    """Axes of `size` inches each, two beside one another: four would be too small to read."""
    columns = min(2, number)
    rows = math.ceil(number / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, **shared
    )
    for axis in axes.flat[number:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:number])


def over_steps(tables: dict[str, pd.DataFrame], xlabel: str, interval: str = OVER_BOTH) -> Figure:
    """Lines over a number (inner steps, meta-updates) with their intervals as bands, a panel a key
    of `tables`.

    tables: by panel title; columns line, x, points, low, high. interval: as of `conditions`.
    """
    figure, axes = _panels(len(tables), (4.1, 2.9), sharey=True)
    names = list(dict.fromkeys(name for table in tables.values() for name in table["line"]))
    colours = dict(zip(names, plt.cm.viridis(np.linspace(0, 0.85, len(names))), strict=True))
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        for name, rows in table.groupby("line", sort=False):
            rows = rows.sort_values("x")
            axis.plot(rows["x"], rows["points"], "o-", ms=3.5, color=colours[name], label=name)
            axis.fill_between(rows["x"], rows["low"], rows["high"], color=colours[name], alpha=0.15,
                              lw=0)  # fmt: skip
        axis.set(title=title, xlabel=xlabel)
    for axis in axes[::2]:
        axis.set_ylabel("percentage points")
    figure.tight_layout()
    band = f"band, {interval}:" if _have_intervals(tables) else None
    drawn = {line.get_label(): line for axis in axes for line in axis.get_lines()}
    legend_below(figure, [drawn[name] for name in names], title=band)
    return figure


def recipes_along(rates: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Mean, standard deviation and share of negative rates of every layer along training, a line a
    recipe; dashed, the paper's at the end of its own. Means have a scale each, whose signs one for
    all would hide.

    rates: recipe, layer, update, mean, std, share_negative, of one seed each or averaged. paper:
    layer, "paper mean", "paper std".
    """
    measures = {
        "mean": "mean,\neach on its own scale",
        "std": "standard deviation",
        "share_negative": "share negative",
    }
    layers, recipes = list(paper["layer"]), list(dict.fromkeys(rates["recipe"]))
    size = (2.5 * len(layers), 2.1 * len(measures))
    figure, axes = plt.subplots(len(measures), len(layers), figsize=size, sharex=True)
    lines = _lines(recipes)
    published = paper.set_index("layer")
    for row, (measure, words) in zip(axes, measures.items(), strict=True):
        for axis in row[1:] if measure != "mean" else ():
            axis.sharey(row[0])
        for axis, layer in zip(row, layers, strict=True):
            for recipe, own in rates[rates["layer"] == layer].groupby("recipe", sort=False):
                along = own.groupby("update")[measure].mean()
                along = along[along > 0] if measure == "std" else along  # its axis is logarithmic
                axis.plot(along.index, along, **lines[recipe])
            if f"paper {measure}" in published:
                level = published.loc[layer, f"paper {measure}"]
                axis.axhline(level, color=PAPER, ls="--", lw=1, label="the paper")
            if measure == "mean":
                axis.axhline(0, color=PAPER, lw=0.5)
                axis.set_title(layer)
            elif measure == "std":
                axis.set_yscale("log")
        row[0].set_ylabel(words)
    for axis in axes[-1]:
        axis.set_xlabel("meta-update")
        axis.locator_params(axis="x", nbins=3)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.tight_layout()
    legend_below(figure, axes[0, 0].get_legend_handles_labels()[0], title=OF_RECIPES)
    return figure


def distance_along(distance: pd.DataFrame) -> Figure:
    """The distance to table 1 along training, a panel a way of counting and a line a recipe.

    distance: as `questions.recipes.distances` gives.
    """
    groups = list(dict.fromkeys(distance["group"]))
    recipes = list(dict.fromkeys(distance["recipe"]))
    size = (5 * len(groups), 3.2)
    figure, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, squeeze=False)
    lines = _lines(recipes)
    finite = distance[np.isfinite(distance["distance"])]
    for axis, group in zip(axes[0], groups, strict=True):
        for recipe, own in finite[finite["group"] == group].groupby("recipe", sort=False):
            along = own.groupby("update")["distance"].mean()
            axis.plot(along.index, along, **lines[recipe])
        axis.set(title=COUNTED.get(group, group), xlabel="meta-update", ylim=(0, None))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 0].set_ylabel("distance to table 1")
    figure.tight_layout()
    legend_below(figure, axes[0, 0].get_legend_handles_labels()[0], title=OF_RECIPES)
    return figure


def _lines(recipes: list[str]) -> dict[str, dict]:
    """How to draw each recipe, such as "plateau, from 0.01, outer rate 0.0001": a dash for its
    schedule, a colour for the rest."""
    parts = [recipe.partition(", ") for recipe in recipes]
    dashes = dict(zip(dict.fromkeys(schedule for schedule, *_ in parts), ("-", ":"), strict=False))
    colours = dict(zip(dict.fromkeys(rest for *_, rest in parts), PALETTE, strict=False))
    return {
        recipe: {"ls": dashes[schedule], "color": colours[rest], "label": recipe}
        for recipe, (schedule, _, rest) in zip(recipes, parts, strict=True)
    }
