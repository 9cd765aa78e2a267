"""The figures of notebook 2, the paper's 6 among them: tables in, figures out."""

import math
import textwrap
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from negmeta_utils.evidence.learned_rates import PAPER_TABLE_1, is_papers
from negmeta_utils.evidence.words import signed
from negmeta_utils.plots.style import NEGATIVE, PALETTE, PAPER, POSITIVE, THEIRS, legend_below

ACROSS = 5  # layers side by side: as many as the paper's network has
BEHIND = PALETTE[4]  # the paper's, where black is taken


def rates_histogram(rates: pd.DataFrame, initial: float | None) -> Figure:
    """Figure 6: the learned rates by layer, weights and biases, negative ones in their own colour.

    rates: layer, rate (one row a rate). initial: the rate that training started from, if one. One
    scale of rates for all layers, and beside them the paper's mean and standard deviation where
    they are its layers.
    """
    layers = list(dict.fromkeys(rates["layer"]))
    rows = math.ceil(len(layers) / ACROSS)
    figure, axes = plt.subplots(
        rows, ACROSS, figsize=(12, 2.9 * rows), squeeze=False, sharex=len(layers) > 1
    )
    by_layer = rates.groupby("layer")["rate"]
    bins = bins_about_zero(by_layer.quantile(0.001).min(), by_layer.quantile(0.999).max())
    published = PAPER_TABLE_1.set_index("layer") if is_papers(layers) else PAPER_TABLE_1.head(0)
    for axis, layer in zip_longest(axes.flat, layers):
        if layer is None:
            axis.set_visible(False)
            continue
        values = rates.loc[rates["layer"] == layer, "rate"].to_numpy()
        for part, shade in ((values[values < 0], NEGATIVE), (values[values >= 0], POSITIVE)):
            axis.hist(part.clip(bins[0], bins[-1]), bins=bins, color=shade, ec="none")
        axis.axvline(values.mean(), color="black", lw=1.3)
        if initial is not None:
            axis.axvline(initial, color="black", lw=1, ls=":")
        if layer in published.index:
            mean, deviation = published.loc[layer, ["paper mean", "paper std"]]
            axis.axvline(mean, color=BEHIND, lw=1.3, ls="--")
            axis.axvspan(mean - deviation, mean + deviation, color=BEHIND, alpha=0.25, lw=0)
        name = textwrap.fill(layer, 22)  # more would meet the next panel's
        share = f"{100 * np.mean(values < 0):.0f} % negative"
        axis.set_title(f"{name}\n{share}\nmean {signed(values.mean(), 4)}")
        axis.set_xlabel("learned rate")
        axis.tick_params(labelbottom=True)
        axis.locator_params(axis="x", nbins=4)
        axis.set_yticks([])
    for axis in axes[:, 0]:
        axis.set_ylabel("parameters")
    key = [
        Patch(color=NEGATIVE, label="negative rates"),
        Patch(color=POSITIVE, label="the others"),
        plt.Line2D([], [], color="black", label="mean"),
    ]
    if initial is not None:
        key.append(plt.Line2D([], [], color="black", ls=":", label="start of training"))
    if len(published):
        key += [
            plt.Line2D([], [], color=BEHIND, ls="--", label=f"mean of {THEIRS}"),
            Patch(color=BEHIND, alpha=0.25, label="± its standard deviation"),
        ]
    figure.tight_layout()
    legend_below(figure, key, 3)
    return figure


def bins_about_zero(low: float, high: float, n: int = 60) -> np.ndarray:
    """Edges of about `n` equal bins that hold `low` to `high`, zero an edge."""
    low, high = min(low, 0), max(high, 0)
    step = max((high - low) / n, 1e-6)
    return step * np.arange(math.floor(low / step) - 1, math.ceil(high / step) + 2)


def rates_over_training(rates: pd.DataFrame) -> Figure:
    """How each layer's rates moved: mean, the middle half and the middle nine tenths; and below,
    the mean alone, whose sign such a range would hide. Ranges have one scale, means one each.

    rates: update, layer, seed, mean, q05 to q95 (the rates table). Seeds are averaged, as far as
    all of them have come. The paper's means at the end of its training are drawn where the layers
    are its own.
    """
    rates = rates.drop_duplicates(["seed", "update", "layer"])  # of two networks of one training
    moving = rates[rates.groupby("seed")["update"].transform("nunique") > 1]
    rates = moving if len(moving) else rates  # of imported networks the end alone is known
    at_hand = rates.groupby("update")["seed"].transform("nunique")
    common = rates[at_hand == rates["seed"].nunique()]
    rates = common if len(common) else rates
    layers = list(dict.fromkeys(rates["layer"]))
    bands = math.ceil(len(layers) / ACROSS)
    figure, axes = plt.subplots(2 * bands, ACROSS, figsize=(12, 4.6 * bands), sharex="col")
    for axis in axes[::2].flat[1:]:
        axis.sharey(axes[0, 0])
    table = rates.groupby(["layer", "update"]).mean(numeric_only=True)
    published = PAPER_TABLE_1.set_index("layer")["paper mean"] if is_papers(layers) else {}
    for axis, below, layer in zip_longest(axes[::2].flat, axes[1::2].flat, layers):
        if layer is None:
            axis.set_visible(False)
            below.set_visible(False)
            continue
        rows = table.loc[layer]
        axis.fill_between(rows.index, rows["q05"], rows["q95"], color=PALETTE[1], alpha=0.2, lw=0)
        axis.fill_between(rows.index, rows["q25"], rows["q75"], color=PALETTE[1], alpha=0.35, lw=0)
        for place in (axis, below):
            place.plot(rows.index, rows["mean"], color=PALETTE[1])
            place.axhline(0, color="black", lw=1)
        if layer in published:
            below.axhline(published[layer], color=PAPER, ls="--", lw=1)
        axis.set(title=textwrap.fill(layer, 22))
        below.set(xlabel="meta-update")
        below.tick_params(labelbottom=True)
        below.locator_params(axis="x", nbins=4)
        below.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axis, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        axis.set_ylabel("learned rate: mean,\nmiddle 50 % and 90 %")
        below.set_ylabel("mean alone,\neach on its own scale")
    figure.tight_layout()
    if len(published):
        theirs = [plt.Line2D([], [], color=PAPER, ls="--", label=f"{THEIRS}, mean at the end")]
        legend_below(figure, theirs)
    return figure
