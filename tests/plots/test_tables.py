"""Tables as notebooks show them."""

import numpy as np
import pandas as pd
from bs4 import BeautifulSoup

from negmeta_utils.evidence.contrasts import contrasts
from negmeta_utils.plots.tables import WORDS, shown


def test_no_two_columns_have_the_same_words():
    """Or one would take the other's place."""
    assert len(set(WORDS.values())) == len(WORDS)
    table = contrasts({"a": pd.DataFrame([[1.0, 2.0]]), "b": pd.DataFrame([[3.0, 5.0]])}, "a")
    assert len(shown(table.fillna("–")).columns) == len(table.columns)


def test_a_table_is_shown_in_words():
    table = pd.DataFrame(
        {
            "method": ["meta-sgd", "meta-sgd - maml"],
            "run": ["glyphs-maml-0", "<b>"],
            "n_episodes": [40_000, 7],
            "share_negative": [0.448, 0.5],
            "points": [-0.1234, np.nan],
            "p_value": [3e-25, 0.0123],
            "high": [np.nan, np.nan],
        }
    )
    page = BeautifulSoup(shown(table, percent=("share_negative",)).to_html(), "html.parser")
    head, *rows = [[cell.text for cell in row(["th", "td"])] for row in page("tr")]
    assert head == ["method", "run", "episodes", "share negative", "points", "p"]
    assert rows == [
        ["Meta-SGD", "glyphs-maml-0", "40,000", "44.8 %", "−0.123", "< 0.0001"],
        ["Meta-SGD − MAML", "<b>", "7", "50.0 %", "–", "0.012"],
    ]
