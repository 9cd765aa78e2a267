"""What notebooks open on, and the shipped tables that it is of."""

import re

import nbformat
import pandas as pd

from negmeta_utils.evidence.contrasts import change_grids, equivalence
from negmeta_utils.evidence.intervals import over_episodes, over_seeds
from negmeta_utils.evidence.quantities import OFF_TASK
from negmeta_utils.plots.style import LABELS
from negmeta_utils.questions.interventions import AS_LEARNED, WITHOUT_NEGATIVE
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


def of_negative_rates(name: str) -> tuple[pd.Series, pd.Series]:
    """Of interventions in a folder of `figures`, points, low and high of the off-task change as
    learned (95 %), and the row of `equivalence` without the negative rates (90 %): over seeds, or
    over pairs of tasks where there is one network."""
    table = pd.read_parquet(FIGURES / name / "interventions.parquet")
    table = table[table["variant"].isin([AS_LEARNED, WITHOUT_NEGATIVE])]
    of = change_grids(table, "variant", OFF_TASK)
    several = len(of[AS_LEARNED]) > 1
    learned = (over_seeds if several else over_episodes)(of[AS_LEARNED]).interval()
    row = equivalence(of, WITHOUT_NEGATIVE, AS_LEARNED).iloc[1 if several else 0]
    return pd.Series(learned, index=["points", "low", "high"]), row


def questions(name: str) -> pd.DataFrame:
    return pd.read_parquet(FIGURES / "questions" / name)
