"""The figures of notebooks 1 to 4, the paper's 5 to 7 among them: tables in, figures out."""

import math
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from negmeta_utils.plots.style import (
    APART,
    COLOURS,
    LABELS,
    NEGATIVE,
    PALETTE,
    PAPER,
    POSITIVE,
    colour,
    label,
)

ACROSS = 5  # layers side by side: as many as the paper's network has


def episode_pictures(support: np.ndarray, query: np.ndarray, class_names: list[str]) -> Figure:
    """One episode: a row a class, support images left of the rule, query images right of it.

    support: [n_way, n_shot, channels, height, width], values in 0..1; query likewise.
    """
    images = np.concatenate([support, query], axis=1)
    n_way, columns = images.shape[:2]
    figure, axes = plt.subplots(
        n_way, columns, figsize=(0.75 * columns + 1.3, 0.78 * n_way + 0.3), squeeze=False
    )
    for row, name in enumerate(class_names):
        for column in range(columns):
            axis = axes[row, column]
            axis.imshow(images[row, column].transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set(visible=True, color=PALETTE[0] if column < support.shape[1] else "none")
                spine.set_linewidth(2.5)
        label = axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        label.set_parse_math(False)  # a folder's name may hold dollars
    axes[0, 0].set_title("support", fontsize=9)
    axes[0, support.shape[1]].set_title("query", fontsize=9, loc="left")
    figure.subplots_adjust(wspace=0.08, hspace=0.08)
    return figure


def training_curves(history: pd.DataFrame, chance: float, window: int = 40) -> Figure:
    """Figure 5: accuracy of the adapted model over training.

    history: update, train_accuracy, val_accuracy (NaN where not evaluated). Training accuracy is
    the mean of `window` meta-updates, the paper's 40 iterations, or of a tenth of a shorter run.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    window = max(1, min(window, len(history) // 10))
    smooth = history["train_accuracy"].rolling(window).mean()
    axis.plot(
        history["update"], 100 * smooth, color=PALETTE[0], label=f"training, mean of {window}"
    )
    validated = history.dropna(subset=["val_accuracy"])
    axis.plot(
        validated["update"],
        100 * validated["val_accuracy"],
        "o-",
        ms=3.5,
        color=PALETTE[1],
        label="validation",
    )
    axis.axhline(100 * chance, color="grey", ls=":", lw=1, label="chance")
    axis.set(xlabel="meta-update", ylabel="accuracy after adaptation (%)")
    axis.legend(frameon=False)
    return figure


def training_curves_of_several(histories: pd.DataFrame) -> Figure:
    """Figure 5 of several networks: validation accuracy over training, a thin line a network and a
    thick one the mean of a method.

    histories: method, seed, update, val_accuracy (NaN where not evaluated).
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    validated = histories.dropna(subset=["val_accuracy"])
    for method, networks in validated.groupby("method", sort=False):
        points = networks.pivot(index="update", columns="seed", values="val_accuracy") * 100
        if points.shape[1] > 1:
            axis.plot(points, color=COLOURS[method], lw=0.7, alpha=0.6)
        label = f"{LABELS[method]}, mean of {points.shape[1]}"
        axis.plot(points.mean(axis=1), color=COLOURS[method], lw=2.2, label=label)
    axis.set(xlabel="meta-update", ylabel="validation accuracy (%)")
    axis.legend(frameon=False)
    return figure


def rates_histogram(rates: pd.DataFrame, initial: float | None) -> Figure:
    """Figure 6: the learned rates by layer, weights and biases, negative ones in their own colour.

    rates: layer, rate (one row a rate). initial: the rate that training started from, if one.
    """
    layers = list(dict.fromkeys(rates["layer"]))
    rows = math.ceil(len(layers) / ACROSS)
    figure, axes = plt.subplots(rows, ACROSS, figsize=(12, 2.7 * rows), squeeze=False)
    for axis, layer in zip_longest(axes.flat, layers):
        if layer is None:
            axis.set_visible(False)
            continue
        values = rates.loc[rates["layer"] == layer, "rate"].to_numpy()
        reach = max(np.quantile(np.abs(values), 0.999), 1e-6)
        bins = np.linspace(-reach, reach, 61)
        for part, shade in ((values[values < 0], NEGATIVE), (values[values >= 0], POSITIVE)):
            axis.hist(part.clip(-reach, reach), bins=bins, color=shade)
        axis.axvline(values.mean(), color="black", lw=1.3)
        if initial is not None:
            axis.axvline(initial, color="black", lw=1, ls=":")
        axis.set_title(f"{layer}: {np.mean(values < 0):.0%} negative\nmean {values.mean():+.4f}")
        axis.set_xlabel("learned rate")
        axis.locator_params(axis="x", nbins=4)
        axis.set_yticks([])
    for axis in axes[:, 0]:
        axis.set_ylabel("parameters")
    key = [plt.Line2D([], [], color="black", label="mean")]
    if initial is not None:
        key.append(plt.Line2D([], [], color="black", ls=":", label="start of training"))
    figure.tight_layout()
    figure.legend(
        handles=key, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0.02)
    )
    return figure


def rates_over_training(rates: pd.DataFrame) -> Figure:
    """How each layer's rates moved: mean, the middle half and the middle nine tenths; and below,
    the mean alone, whose sign such a range would hide.

    rates: update, layer, seed, mean, q05 to q95 (the rates table). Seeds are averaged.
    """
    layers = list(dict.fromkeys(rates["layer"]))
    bands = math.ceil(len(layers) / ACROSS)
    figure, axes = plt.subplots(2 * bands, ACROSS, figsize=(12, 4.6 * bands), sharex="col")
    table = rates.groupby(["layer", "update"]).mean(numeric_only=True)
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
        axis.set(title=layer)
        below.set(xlabel="meta-update")
        below.locator_params(axis="x", nbins=4)
        below.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axis, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        axis.set_ylabel("learned rate: mean,\nmiddle 50 % and 90 %")
        below.set_ylabel("mean alone")
    figure.tight_layout()
    return figure


def feature_accuracy(accuracies: pd.DataFrame) -> Figure:
    """Figure 7: accuracy by cosine prototypes, and of the whole adapted model beside it.

    accuracies: method, measure, mean, low, high in percent. Points rather than the paper's bars:
    the differences are too small for an axis that starts at zero.
    """
    measures = list(dict.fromkeys(accuracies["measure"]))
    methods = list(dict.fromkeys(accuracies["method"]))
    # Room for a number beside each point: a group is as wide as its methods, and a gap.
    width = 0.46 * len(methods) + 0.58
    figure, axis = plt.subplots(figsize=(width * len(measures) + 1, 3.4))
    apart = 0.46 / width
    for number, method in enumerate(methods):
        rows = accuracies[accuracies["method"] == method].set_index("measure").loc[measures]
        places = np.arange(len(measures)) + apart * (number - (len(methods) - 1) / 2)
        errors = np.nan_to_num([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
        axis.errorbar(
            places, rows["mean"], errors, fmt="o", capsize=3, color=colour(method),
            label=label(method),
        )  # fmt: skip
        for place, mean in zip(places, rows["mean"], strict=True):
            axis.annotate(
                f"{mean:.1f}", (place, mean), (6, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
    axis.set_xticks(np.arange(len(measures)), measures)
    axis.set(ylabel="accuracy (%)", xlim=(-0.5, len(measures) - 0.3))
    axis.grid(False, axis="x")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def feature_changes(changes: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """What adaptation does to features: on-task and off-task changes with their intervals.

    changes: method, quantity, over ("episodes" or "seeds"), points, low, high; rows without an
    interval are left out. paper: method, quantity, points. All in percentage points.
    """
    changes = changes.dropna(subset=["low", "high"])
    quantities = list(dict.fromkeys(changes["quantity"]))
    methods = list(dict.fromkeys(changes["method"]))
    size = (4.6 * len(quantities), 1.6 + 0.6 * len(methods))
    figure, axes = plt.subplots(1, len(quantities), figsize=size, sharey=True, squeeze=False)
    for axis, quantity in zip(axes[0], quantities, strict=True):
        for place, method in enumerate(methods):
            rows = changes[(changes["quantity"] == quantity) & (changes["method"] == method)]
            for row in rows.itertuples():
                _interval(axis, row, place + APART[row.over], colour(method))
            published = paper[(paper["quantity"] == quantity) & (paper["method"] == method)]
            axis.plot(published["points"], [place] * len(published), "x", color=PAPER, zorder=3)
        axis.axvline(0, color="black", lw=1)
        axis.set(title=quantity, xlabel="percentage points", ylim=(-0.6, len(methods) - 0.4))
        axis.locator_params(axis="x", nbins=6)
    axes[0, 0].set_yticks(range(len(methods)), [label(m) for m in methods])
    handles = {
        "episodes": {"marker": "o", "label": "over episodes: these networks"},
        "seeds": {"marker": "s", "ls": "--", "label": "over seeds: the methods"},
        "paper": {"marker": "x", "ls": "", "color": PAPER, "label": "the paper"},
    }
    shown = set(changes["over"]) | ({"paper"} if len(paper) else set())
    figure.tight_layout()
    figure.legend(
        handles=[
            plt.Line2D([], [], **{"color": "grey"} | style)
            for name, style in handles.items()
            if name in shown
        ],
        frameon=False,
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
    )
    return figure


def _interval(axis: plt.Axes, row, place: float, colour: str) -> None:
    over_seeds = row.over == "seeds"
    axis.plot([row.low, row.high], [place] * 2, color=colour, ls="--" if over_seeds else "-")
    axis.plot(row.points, place, "s" if over_seeds else "o", color=colour, ms=5)
