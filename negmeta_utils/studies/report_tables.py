"""Tables of a report: columns in words, each with a line on what it is, and numbers to be read."""

import math
import re
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from negmeta_utils.evidence.words import p_text
from negmeta_utils.plots.tables import WORDS, holds_p_values, text_cell, words

OF_SEEDS = ("n_seeds", "low", "high")  # numbers of seeds, of which none may suffice
SHOWN = 14  # rows, as many as table 1 has; the rest is a link away
# What a column of the study's tables holds. Names not listed here are shown without a line.
MEANINGS = {
    "method": "how the networks were trained",
    "seed": "of the training",
    "seeds": "number of trained networks",
    "n_seeds": "number of trained networks",
    "n_episodes": "pairs of tasks for each network",
    "episodes": "pairs of tasks",
    "quantity": "what is estimated",
    "over": "what the interval treats as drawn at random",
    "n": "how many of these there are",
    "points": "estimate, in points of accuracy",
    "mean": "estimate",
    "low": "lower end of the interval, 95 % where nothing else is said",
    "high": "upper end of the interval, 95 % where nothing else is said",
    "d_z": "estimate in standard deviations of the difference",
    "d_z_low": "lower end of its 95 % interval",
    "d_z_high": "upper end of its 95 % interval",
    "p_value": "two-sided, of a difference of zero",
    "df": "degrees of freedom",
    "sd_seeds": "standard deviation between trained networks, points",
    "sd_episodes": "standard deviation between pairs of tasks, points",
    "sd_residual": "what is left of the standard deviation, points",
    "fit": "how the variances were found",
    "interval": "way of making the interval",
    "drawn": "what it treats as drawn at random",
    "misses": "share of simulated studies whose interval misses the truth",
    "power": "chance that the rule decides an effect of the paper's size",
    "seeds_to_decide": "networks by each method that would decide it",
    "reading": "way of reading the paper's sentence about its test",
    "statistic": "t",
    "difference": "Meta-SGD minus MAML, in what the reading compares",
    "group": "weights and biases, or batch normalisation's scale and shift",
    "layer": "of the network",
    "std": "standard deviation of the layer's rates",
    "share_negative": "share of rates below zero",
    "rates": "number of rates",
    "paper mean": "the paper's table 1",
    "paper std": "the paper's table 1",
    "start": "rate before training",
    "change": "mean change during training",
    "p_start": "p-value of no change",
    "p_zero": "p-value of a mean of zero",
    "p_share": "p-value of no change of the share",
    "pre_adaptation": "accuracy of features before adaptation, %",
    "ordinary": "accuracy of the whole adapted network, %",
    "on_task": "change of features on the task adapted to, points",
    "off_task": "change of features on another task, points",
    "off_task_paper": "as the paper compares: second task after minus first before, points",
    "on_task_relative": "change in % of accuracy before adaptation",
    "off_task_relative": "change in % of accuracy before adaptation",
    "off_task_paper_relative": "change in % of accuracy before adaptation",
    "claim": "of the paper",
    "networks": "verdict on these networks, over episodes",
    "methods": "verdict on the methods, over training seeds",
    "p networks": "of the verdict on these networks",
    "p methods": "of the verdict on the methods",
    "Holm networks": "the same p-value, corrected for all claims",
    "Holm methods": "the same p-value, corrected for all claims",
}


# Columns that hold something else in one table of one notebook.
SPECIAL: dict[tuple[str, str], dict[str, str]] = {
    ("04_statistics", "power"): {
        "n_seeds": "networks by each method, if there were so many",
        "n_episodes": "pairs of tasks for each network, if there were so many",
    },
    ("04_statistics", "seeds_needed"): {
        "n_seeds": "networks by each method that would show the paper's effect",
        "n_episodes": "pairs of tasks for each network, if there were so many",
        "low": "the same at the lower end of the variance between networks, 95 %",
        "high": "the same at its upper end",
    },
    ("05_mechanism", "equivalence"): {
        "rates": "what is done to the learned rates",
        "p_value": "of a difference of 0.1 points or more, by two one-sided tests",
        "low": "lower end of the 90 % interval",
        "high": "upper end of the 90 % interval",
    },
    ("09_linear_theory", "changes"): {
        "rates": "what is done to the learned rates",
        "on_task": "change of the loss on the task adapted to",
        "off_task": "change of the loss on another task",
    },
}


def readable(
    title: str,
    table: pd.DataFrame,
    link: str | None = None,
    special: dict[str, str] | None = None,
) -> dict:
    """A table as the page shows it: title, columns in words, what they hold, rows as text.

    link: the file that holds all rows, from the page. special: of `SPECIAL`.
    """
    meanings = MEANINGS | (special or {})
    return {
        "title": title,
        "link": link,
        "columns": [heading(column) for column in table],
        "meanings": [(heading(c), said) for c in table if (said := meanings.get(c))],
        "numeric": [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes],
        "rows": [
            [as_text(column, value) for column, value in zip(table, row, strict=True)]
            for row in table.itertuples(index=False)
        ],
        "shown": SHOWN,
    }


def title_of(path: Path) -> str:
    return re.sub(r"(?<=[a-z])(?=\d)", " ", path.stem.replace("_", " "))


def heading(column: str) -> str:
    """A column in words; those of `WORDS` may hold markup, any other name may not."""
    return Markup(words(column)) if column in WORDS else words(column)


def as_text(column: str, value: object) -> str:
    """A cell: four digits and no power of ten, a proper minus, p-values no smaller than can be
    meant, methods and data sets by their names."""
    if pd.isna(value):
        return "–"
    if isinstance(value, Integral):
        return str(value) if isinstance(value, bool | np.bool_) else _grouped(int(value))
    if not isinstance(value, float):
        return text_cell(column, value)
    if math.isinf(value):
        return "more episodes needed" if column in OF_SEEDS else "∞"
    if holds_p_values(column):
        return p_text(value)
    if abs(value) >= 1000:
        return _grouped(value)
    digits = np.format_float_positional(value, 4, unique=False, fractional=False, trim="-")
    return digits.replace("-", "−")


def _grouped(number: float) -> str:
    return f"{number:,.0f}".replace("-", "−")
