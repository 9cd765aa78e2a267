"""Tables as notebooks show them: columns and methods in words, a proper minus, p-values no smaller
than can be meant, and no column without a value."""

import html
import re
from numbers import Integral

import pandas as pd
from pandas.io.formats.style import Styler

from negmeta_utils.evidence.words import NONE, fixed, p_text
from negmeta_utils.plots.style import LABELS, NAMES, label

ONE_LINE, TO_THE_LEFT = "white-space: nowrap", "text-align: left"  # numbers and text
# Columns whose name is not its words with underscores between them.
WORDS = {
    "n_updates": "meta-updates",
    "update": "meta-update",
    "n_filters": "filters",
    "n_way": "ways",
    "n_shot": "shots",
    "n_query": "queries",
    "n_seeds": "seeds",
    "n_episodes": "episodes",
    "inner_lr": "inner rate",
    "alpha_init": "rates at the start",
    "p_value": "p",
    "p_start": "p, as at the start",
    "p_zero": "p, zero",
    "p_share": "p, share as at the start",
    "minus_base": "difference",
    "minus_low": "difference low",
    "minus_high": "difference high",
    "verdict_minus": "difference, verdict",
    "needed_minus": "difference, needed",
    "d_z": "d<sub>z</sub>",
    "d_z_low": "d<sub>z</sub> low",
    "d_z_high": "d<sub>z</sub> high",
    "size_mb": "MB",
    "same_before": "A before",
    "same_after": "A after",
    "other_before": "B before",
    "other_after": "B after",
    "pre_adaptation": "before adaptation",
    "ordinary": "whole adapted model",
    "on_task": "on-task change",
    "off_task": "off-task change",
    "off_task_paper": "off-task change, paper's pairing",
    "on_task_relative": "on-task, %",
    "off_task_relative": "off-task, %",
    "off_task_paper_relative": "paper's pairing, %",
}


def words(name: object) -> str:
    """A column's name in words."""
    return WORDS.get(str(name), str(name).replace("_", " "))


def holds_p_values(column: str) -> bool:
    return str(column).startswith(("p_", "p ", "Holm "))


def in_print(text: str) -> str:
    """Methods by their labels, and hyphens before numbers as minus signs."""
    for method in ("meta-sgd", "maml"):
        text = re.sub(rf"(?<![\w-]){method}(?![\w-])", LABELS[method], text)
    return re.sub(r"(?<=[\s\[])-(?=[\d\s])", "−", text)


def shown(table: pd.DataFrame, precision: int = 3, percent: tuple[str, ...] = ()) -> Styler:
    """`table` for a notebook's page, without its index.

    precision: decimals of floats. percent: columns of shares, 0..1, shown in percent with one
    decimal.
    """
    table = table.dropna(axis=1, how="all")
    cells = pd.DataFrame(
        {
            words(name): [
                _percent(value) if name in percent else _cell(name, value, precision)
                for value in column
            ]
            for name, column in table.items()
        }
    )
    numbers = {words(name) for name in table.select_dtypes("number")}
    styles = {
        name: [{"selector": "", "props": ONE_LINE if name in numbers else TO_THE_LEFT}]
        for name in cells
    }
    return cells.style.hide(axis="index").set_table_styles(styles)


def _percent(share: float) -> str:
    text = fixed(100 * share, 1)
    return text if text == NONE else f"{text} %"


def _cell(column: str, value: object, precision: int) -> str:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return p_text(value) if holds_p_values(column) else fixed(value, precision)
    return html.escape(text_cell(column, value), quote=False)


def text_cell(column: str, value: object) -> str:
    """A cell that is no number: methods, data sets and backbones by their names."""
    if column == "method" and str(value).partition("@")[0] in LABELS:
        return label(str(value))
    if column in ("dataset", "backbone"):
        return NAMES.get(value, str(value))
    return in_print(str(value))
