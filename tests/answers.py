"""What notebooks open on, and the shipped tables that it is of."""

import nbformat
import pandas as pd

from negmeta_utils.storage.paths import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS

FIGURES = ROOT / "figures"
LONGEST = FIGURES / "paper-28" / "networks"  # at 28×28, of 60,000 meta-updates


def answer(number: str) -> str:
    """The first cell of a notebook, in which the answer is."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return nbformat.read(path, 4).cells[0].source


def questions(name: str) -> pd.DataFrame:
    return pd.read_parquet(FIGURES / "questions" / name)
