"""The figures of notebooks 1, 3 and 4, the paper's 5 and 7 among them: tables in, figures out."""

import math
import textwrap
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from negmeta_utils.evidence.quantities import PAPER_ACCURACIES
from negmeta_utils.plots.style import (
    APART,
    COLOURS,
    LABELS,
    PALETTE,
    PAPER,
    THEIRS,
    colour,
    label,
    legend_below,
    markers,
)

SMOOTHED = 40  # meta-updates whose training accuracies are averaged in figure 5


def episode_pictures(support: np.ndarray, query: np.ndarray, class_names: list[str]) -> Figure:
    """One episode: a row a class, support images framed, query images right of them.

    support: [n_way, n_shot, channels, height, width], values in 0..1; query likewise.
    """
    images = np.concatenate([support, query], axis=1).transpose(0, 1, 3, 4, 2)
    n_way, columns, height, width, channels = images.shape
    gap = math.ceil(width / 8)  # pixels
    # One picture of all: a subplot for each would take seconds.
    whole = np.ones((n_way, columns, height + gap, width + gap, channels))
    whole[:, :, :height, :width] = images
    across = np.arange(columns) * (width + gap) - 0.5  # left edges; 0 is a pixel's centre
    down = np.arange(n_way) * (height + gap) - 0.5
    figure, axis = plt.subplots(figsize=(0.75 * columns + 1.3, 0.78 * n_way + 0.3))
    together = whole.swapaxes(1, 2).reshape(n_way * (height + gap), -1, channels)[:-gap, :-gap]
    axis.imshow(together[..., 0] if channels == 1 else together, cmap="gray", vmin=0, vmax=1)
    for top in down:
        for left in across[: support.shape[1]]:
            frame = Rectangle((left, top), width, height, fill=False, clip_on=False)
            axis.add_patch(frame).set(color=PALETTE[0], linewidth=2.5)
    axis.set(xticks=[], yticks=down + height / 2)
    for text in axis.set_yticklabels([class_name(name) for name in class_names], fontsize=8):
        text.set_parse_math(False)  # a folder's name may hold dollars
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    for name, left in (("support", across[0]), ("query", across[support.shape[1]])):
        axis.text(left, -0.5 - gap, name, fontsize=9)
    return figure


def training_curves(history: pd.DataFrame, chance: float, method: str) -> Figure:
    """Figure 5: accuracy of the adapted model over training, and the paper's at the end, if it has
    the method.

    history: update, train_accuracy, val_accuracy (NaN where not evaluated). Training accuracy is
    the mean of the paper's 40 iterations, or of a tenth of a shorter run.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    window = max(1, min(SMOOTHED, len(history) // 10))
    smooth = history["train_accuracy"].rolling(window).mean()
    axis.plot(
        history["update"],
        100 * smooth,
        color=COLOURS[method],
        alpha=0.4,
        label=f"training, mean of {window}",
    )
    validated = history.dropna(subset=["val_accuracy"])
    axis.plot(
        validated["update"],
        100 * validated["val_accuracy"],
        "o-",
        ms=3.5,
        color=COLOURS[method],
        label="validation",
    )
    axis.axhline(100 * chance, color="grey", ls=":", lw=1, label="chance")
    for level in PAPER_ACCURACIES.loc[PAPER_ACCURACIES["method"] == method, "mean"]:
        label = f"{THEIRS}, end of validation"
        axis.axhline(level, color=PAPER, ls="--", lw=1, label=label)
    axis.set(xlabel="meta-update", ylabel="accuracy after adaptation (%)")
    figure.tight_layout()
    legend_below(figure, axis.get_legend_handles_labels()[0])
    return figure


def training_curves_of_several(trainings: Iterable[tuple[str, int, pd.DataFrame]]) -> Figure:
    """Figure 5 of several networks: validation accuracy over training, a thin line a network and a
    thick one the mean of a method, as far as all its networks have come.

    trainings: method, seed and history (update, val_accuracy: NaN where not evaluated) of each.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    named = [history.assign(method=method, seed=seed) for method, seed, history in trainings]
    validated = pd.concat(named).dropna(subset=["val_accuracy"])
    for method, networks in validated.groupby("method", sort=False):
        points = networks.pivot(index="update", columns="seed", values="val_accuracy") * 100
        label = f"{LABELS[method]}, mean of {points.shape[1]}"
        if points.shape[1] > 1:
            axis.plot(points, color=COLOURS[method], lw=0.7, alpha=0.6)
            label += " (thin: each)"
        axis.plot(points.dropna().mean(axis=1), color=COLOURS[method], lw=2.2, label=label)
    for theirs in PAPER_ACCURACIES.itertuples():
        if theirs.method in set(validated["method"]):
            label = f"{LABELS[theirs.method]}, {THEIRS}, at the end"
            axis.axhline(theirs.mean, color=COLOURS[theirs.method], ls="--", lw=1, label=label)
    axis.set(xlabel="meta-update", ylabel="validation accuracy (%)")
    figure.tight_layout()
    legend_below(figure, axis.get_legend_handles_labels()[0])
    return figure


def feature_accuracy(accuracies: pd.DataFrame) -> Figure:
    """Figure 7: accuracy by cosine prototypes, and of the whole adapted model beside it.

    accuracies: method, measure, mean, low, high in percent. Points rather than the paper's bars:
    the differences are too small for an axis that starts at zero. Of the paper's bars only those of
    the whole adapted model have a number in its text: crosses. On-task and off-task each stand
    beside the same task before adaptation.
    """
    measures = list(dict.fromkeys(accuracies["measure"]))
    methods = list(dict.fromkeys(accuracies["method"]))
    # A group is as wide as its methods, and a gap; with room for a number beside each point, unless
    # they are so many that all would be too small to read.
    readable = len(methods) <= 3
    place_width = 0.52 if readable else 0.2
    width = place_width * len(methods) + 0.58
    figure, axis = plt.subplots(figsize=(width * len(measures) + 1, 3.4))
    apart, marks = place_width / width, markers(methods)
    for number, method in enumerate(methods):
        rows = accuracies[accuracies["method"] == method].set_index("measure").loc[measures]
        places = np.arange(len(measures)) + apart * (number - (len(methods) - 1) / 2)
        errors = np.nan_to_num([rows["mean"] - rows["low"], rows["high"] - rows["mean"]])
        axis.errorbar(
            places, rows["mean"], errors, fmt=marks[method], capsize=3, color=colour(method),
            label=label(method),
        )  # fmt: skip
        for place, mean in zip(places, rows["mean"], strict=True) if readable else ():
            axis.annotate(
                f"{mean:.1f}", (place, mean), (6, 0), textcoords="offset points", va="center",
                fontsize=8,
            )  # fmt: skip
        for theirs in PAPER_ACCURACIES[PAPER_ACCURACIES["method"] == method].itertuples():
            place = places[measures.index(theirs.measure)]
            axis.plot(place, theirs.mean, "x", color=colour(method), zorder=3)
    axis.set_xticks(np.arange(len(measures)), [textwrap.fill(name, 15) for name in measures])
    axis.set(ylabel="accuracy (%)", xlim=(-0.5, len(measures) - 0.3))
    axis.grid(False, axis="x")
    figure.tight_layout()
    handles = axis.get_legend_handles_labels()[0]
    if set(methods) & set(PAPER_ACCURACIES["method"]):
        handles.append(plt.Line2D([], [], marker="x", ls="", color="grey", label=THEIRS))
    legend_below(figure, handles, 3)
    return figure


def feature_changes(changes: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """What adaptation does to features: on-task and off-task changes with their intervals, below
    one another on one scale, which is readable on a telephone, too.

    changes: method, quantity, over ("episodes" or "seeds"), points, low, high; rows without an
    interval are left out. paper: method, quantity, points. All in percentage points.
    """
    changes = changes.dropna(subset=["low", "high"])
    if changes.empty:
        raise ValueError("changes: none has an interval; evaluate two episodes or more")
    quantities = list(dict.fromkeys(changes["quantity"]))
    methods = list(dict.fromkeys(changes["method"]))
    size = (5.6, 0.8 + (0.6 + 0.4 * len(methods)) * len(quantities))
    figure, axes = plt.subplots(
        len(quantities), 1, figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axis, quantity in zip(axes[:, 0], quantities, strict=True):
        for place, method in enumerate(reversed(methods)):
            rows = changes[(changes["quantity"] == quantity) & (changes["method"] == method)]
            for row in rows.itertuples():
                _interval(axis, row, place + APART[row.over], colour(method))
            published = paper[(paper["quantity"] == quantity) & (paper["method"] == method)]
            axis.plot(published["points"], [place] * len(published), "x", color=PAPER, zorder=3)
        axis.axvline(0, color="black", lw=1)
        axis.set(title=quantity, ylim=(-0.6, len(methods) - 0.4))
        axis.locator_params(axis="x", nbins=6)
    axes[-1, 0].set_xlabel("percentage points")
    axes[0, 0].set_yticks(range(len(methods)), [label(m) for m in reversed(methods)])
    handles = {
        "episodes": {"marker": "o", "label": "95 % over pairs of tasks: these networks"},
        "seeds": {"marker": "s", "ls": "--", "label": "95 % over seeds: the methods"},
        "paper": {"marker": "x", "ls": "", "color": PAPER, "label": THEIRS},
    }
    crossed = paper["quantity"].isin(quantities) & paper["method"].isin(methods)
    shown = set(changes["over"]) | ({"paper"} if crossed.any() else set())
    figure.tight_layout()
    keys = [
        plt.Line2D([], [], **{"color": "grey"} | style)
        for name, style in handles.items()
        if name in shown
    ]
    legend_below(figure, keys)
    return figure


def class_name(name: str) -> str:
    """A class beside its images: lower case, two lines at most."""
    return textwrap.fill(textwrap.shorten(name.lower(), 44, placeholder=" …"), 22)


def _interval(axis: plt.Axes, row, place: float, colour: str) -> None:
    over_seeds = row.over == "seeds"
    axis.plot([row.low, row.high], [place] * 2, color=colour, ls="--" if over_seeds else "-")
    axis.plot(row.points, place, "s" if over_seeds else "o", color=colour, ms=5)
