"""What notebooks open on, and the shipped tables that it is of."""

import re

import nbformat
import pandas as pd

from negmeta_utils.plots.style import LABELS
from negmeta_utils.storage.paths import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS

FIGURES = ROOT / "figures"
LONGEST = FIGURES / "paper-28" / "networks"  # at 28×28, of 60,000 meta-updates


def answer(number: str) -> str:
    """The first cell of a notebook, in which the answer is."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return nbformat.read(path, 4).cells[0].source


def verdict(row, column: str) -> str:
    """A verdict of a row of `claims`, as pages show it: with what its note says against it."""
    text, only = f"**{getattr(row, column)}**", f"{column}: no such effect for "
    if part := re.search(rf"{only}([\w-]+)(;|$)", row.note):
        text += f" for {LABELS[part[1]]}"
    if column == "networks" and "the paper's own test no" in row.note:
        text += ", not by the paper's own test"
    return text + (", not by Holm" if f"{column}: not by Holm" in row.note else "")


def of_claims(run: str) -> pd.DataFrame:
    return pd.read_csv(FIGURES / run / "claims.csv", keep_default_na=False)


def of_single_mechanisms() -> list[pd.DataFrame]:
    """Of each network whose interventions `tools/mechanism.py` made, differences from its rates as
    learned."""
    folders = ("paper-28", "paper-84", "recipes")
    return [pd.read_csv(FIGURES / name / "mechanism" / "equivalence.csv") for name in folders]


def questions(name: str) -> pd.DataFrame:
    return pd.read_parquet(FIGURES / "questions" / name)
