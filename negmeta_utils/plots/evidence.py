"""Plots of notebook 4 about inference itself: tables in, figures out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from negmeta_utils.plots.style import COLOURS, LABELS, NEGATIVE, POSITIVE, legend_below

TOO_MANY = 0.09  # misses: 5 % and three standard errors of 300 simulations


def intervals_compared(table: pd.DataFrame) -> Figure:
    """One difference by several intervals, and the share of such intervals that miss the truth.

    table: quantity (a panel each), interval, mean, low, high (percentage points), misses (0..1 or
    NaN), as `interval_methods.compared` gives with a column of quantities. Intervals without
    bounds are left out. Coloured where misses are `TOO_MANY`.
    """
    table = table.dropna(subset=["low", "high"])
    quantities = list(dict.fromkeys(table["quantity"]))
    names = list(dict.fromkeys(table["interval"]))
    size = (4.1 * len(quantities) + 2.4, 0.42 * len(names) + 1)
    figure, axes = plt.subplots(
        1, len(quantities), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axis, quantity in zip(axes[0], quantities, strict=True):
        rows = table[table["quantity"] == quantity].set_index("interval")
        for place, name in enumerate(names):
            if name not in rows.index:
                continue
            row = rows.loc[name]
            colour = NEGATIVE if row["misses"] > TOO_MANY else POSITIVE
            axis.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=2)
            axis.plot(row["mean"], place, "o", color=colour, ms=5)
            if not np.isnan(row["misses"]):
                text = f"misses {100 * row['misses']:.0f} %"
                beside = ("axes fraction", "data")
                axis.annotate(text, (1.01, place), xycoords=beside, va="center", fontsize=8)
        axis.axvline(0, color="black", lw=1)
        axis.set(title=quantity, xlabel="Meta-SGD − MAML, points", ylim=(len(names) - 0.5, -0.5))
    axes[0, 0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    many = table["misses"] > TOO_MANY
    keys = [
        plt.Line2D([], [], color=colour, marker="o", ms=5, label=words)
        for found, colour, words in (
            (~many, POSITIVE, "95 % interval"),
            (many, NEGATIVE, f"one that misses the truth in more than {100 * TOO_MANY:.0f} %"),
        )
        if found.any()
    ]
    legend_below(figure, keys)
    return figure


def power_curves(table: pd.DataFrame, wanted: float) -> Figure:
    """Power against the number of training seeds, a line for each number of episodes.

    table: method (a panel each), effect (points), n_seeds, n_episodes, power, as
    `power.power_table` gives with columns of the first two. wanted: the power to reach, dotted.
    """
    methods = list(dict.fromkeys(table["method"]))
    episodes = sorted(table["n_episodes"].unique())
    colours = sns.light_palette(COLOURS["maml"], len(episodes) + 1)[1:]
    figure, axes = plt.subplots(
        1, len(methods), figsize=(4.2 * len(methods) + 1.3, 3.2), sharey=True, squeeze=False
    )
    for axis, method in zip(axes[0], methods, strict=True):
        for n_episodes, colour in zip(episodes, colours, strict=True):
            rows = table[(table["method"] == method) & (table["n_episodes"] == n_episodes)]
            label = f"{n_episodes:,} pairs of tasks"
            axis.plot(rows["n_seeds"], rows["power"], color=colour, label=label)
        axis.axhline(wanted, color="black", ls=":", lw=1)
        effect = table.loc[table["method"] == method, "effect"].iloc[0]
        axis.set(title=f"{LABELS[method]}: {effect:.2f} points off-task", ylim=(0, 1.02))
        axis.set_xlabel("training seeds of each method")
        axis.set_xlim(table["n_seeds"].min(), table["n_seeds"].max())
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:.0f}")
    axes[0, 0].set_ylabel("probability of a verdict")
    axes[0, -1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure
