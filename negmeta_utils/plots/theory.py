"""Plots of notebook 9, mixed linear regression: tables in, figures out."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from negmeta_utils.plots.style import PALETTE, PAPER

SWEEP_TITLES = {
    "meta-training": "meta-training's rate varies",
    "adaptation": "the new tasks' rate varies",
    "both": "one rate for both, as in MAML",
}


def rate_sweeps(
    curves: pd.DataFrame, points: pd.DataFrame, best: pd.DataFrame, learned: pd.DataFrame
) -> Figure:
    """Mixed linear regression: test loss along three sweeps of the inner rate, and rates learned.

    curves: vary, rate, test_loss in closed form. points: vary, rate, mean, low, high as measured.
    best: vary, closed_form, rate, low, high. learned: as for `learned_rates`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 6.8))
    for axis, (vary, title) in zip(axes.flat, SWEEP_TITLES.items(), strict=False):
        line, dots = (table[table["vary"] == vary] for table in (curves, points))
        (row,) = best[best["vary"] == vary].itertuples()
        axis.axvspan(row.low, row.high, color=PALETTE[0], alpha=0.15, lw=0)
        axis.axvline(row.closed_form, color=PAPER, lw=1, ls="--")
        axis.axvline(0, color="grey", lw=1, ls=":")
        axis.plot(line["rate"], line["test_loss"], color=PAPER, lw=1.3)
        errors = [dots["mean"] - dots["low"], dots["high"] - dots["mean"]]
        axis.errorbar(dots["rate"], dots["mean"], errors, fmt="o", ms=4, color=PALETTE[0])
        axis.set(title=title, xlabel="inner rate", ylabel="test loss")
    learned_rates(learned, axes[1, 1])
    keys = [
        plt.Line2D([], [], color=PAPER, label="closed form"),
        plt.Line2D([], [], color=PAPER, ls="--", label="its best rate"),
        plt.Line2D([], [], color=PALETTE[0], marker="o", ls="", label="measured, 95 %"),
        plt.Rectangle((0, 0), 1, 1, color=PALETTE[0], alpha=0.15, label="its best rate, 95 %"),
    ]
    figure.tight_layout()
    figure.legend(
        handles=keys, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.01)
    )
    return figure


def learned_rates(learned: pd.DataFrame, axis: plt.Axes | None = None) -> Figure:
    """Inner rates along their learning, on `axis` or a figure of its own.

    learned: what, seed, update, rate, closed_form. One line a seed, a colour for each `what`, and
    dashed where its closed form says that it ends.
    """
    if axis is None:
        _, axis = plt.subplots(figsize=(6.4, 3.4))
    for colour, (what, rows) in zip(PALETTE, learned.groupby("what", sort=False), strict=False):
        for number, (_, run) in enumerate(rows.groupby("seed")):
            label = what if number == 0 else None
            axis.plot(run["update"], run["rate"], color=colour, lw=1.2, label=label)
        ends = axis.axhline(rows["closed_form"].iloc[0], color=PAPER, lw=1, ls="--")
    ends.set_label("closed form of its end")
    axis.axhline(0, color="grey", lw=1, ls=":")
    axis.set(title="the rate is learned", xlabel="update of the rate", ylabel="inner rate")
    axis.legend(frameon=False, loc="center right")
    return axis.figure
