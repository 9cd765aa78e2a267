import numpy as np
import pandas as pd
import pytest
from scipy import stats

from negmeta_utils.evidence.error_rates import (
    CASES,
    LEFT_OUT,
    SEEDS,
    TABLE,
    draw_grid,
    error_rates,
    wrong_verdicts,
    wrong_verdicts_markdown,
)
from negmeta_utils.storage import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS


@pytest.mark.slow
def test_a_cell_of_the_shipped_table_is_computed_again():
    shipped = pd.read_csv(TABLE)
    cell = {"seeds": "exponential", "n_seeds": 8, "n_episodes": 300, "case": "(f), no effect"}
    row = shipped[(shipped[list(cell)] == list(cell.values())).all(axis=1)]
    n_tables = int(row.n_tables.item())
    again = error_rates(*([value] for value in cell.values()), n_tables)
    pd.testing.assert_frame_equal(again, row.reset_index(drop=True))


def test_the_shipped_table_has_every_case_and_the_rules_promise_holds_in_it():
    table = pd.read_csv(TABLE)
    assert set(table.seeds) == set(SEEDS) and set(table.case) == set(CASES)
    assert set(table.n_seeds) == {3, 5, 8, 12} and set(table.n_episodes) == {300, 40_000}
    assert not table.duplicated(["seeds", "n_seeds", "n_episodes", "case"]).any()
    assert (table.wrong <= table.definite).all()
    allowed = {"Gaussian": 0.05, LEFT_OUT: 0.05, "exponential": 0.08, "lognormal": 0.13}
    for kind, rate in allowed.items():
        rows = table[table.seeds == kind]
        most = stats.binom.ppf(1 - 1e-3 / len(rows), rows.n_tables, rate) / rows.n_tables
        assert (rows.wrong <= most).all(), rows[rows.wrong > most]
    assert (table[table.n_seeds == 3].definite == 0).all()


@pytest.mark.parametrize("kind", [kind for kind in SEEDS if "collapsed" not in kind])
def test_seeds_have_mean_0_and_standard_deviation_1(kind):
    values = SEEDS[kind](np.random.default_rng(0), 1_000_000)
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.05)


def test_collapsed_seeds_have_mean_0_with_those_that_collapsed_and_without():
    rng = np.random.default_rng(1)
    assert SEEDS["one in ten collapsed"](rng, 400_000).mean() == pytest.approx(0, abs=0.03)
    left = SEEDS[LEFT_OUT](rng, 400_000)
    assert left.mean() == pytest.approx(0, abs=0.01)
    assert len(left) == pytest.approx(360_000, rel=0.01)


def test_grids_are_in_fiftieths_and_their_blocks_are_means_of_such():
    rng = np.random.default_rng(2)
    single = draw_grid(rng, "Gaussian", 6, 300)
    assert ((single / 2) % 1 == 0).all(axis=None)
    means = [draw_grid(rng, "Gaussian", 2, 300).to_numpy().mean() for _ in range(400)]
    blocks = [draw_grid(rng, "Gaussian", 2, 40_000).to_numpy().mean() for _ in range(400)]
    for found, n_episodes in ((means, 300), (blocks, 40_000)):
        variance = 0.3**2 / 2 + (1 + (2.7**2 + 4 / 12) / 2) / n_episodes
        assert np.std(found) == pytest.approx(np.sqrt(variance), rel=0.12)


def test_the_table_for_reading_has_a_row_a_case_and_kind():
    table = error_rates(["Gaussian"], [3, 5], [300], ["(f), no effect"], 2)
    wide = wrong_verdicts(table)
    assert wide.shape == (1, 2) and wide.index[0] == ("(f), no effect", "Gaussian")


def test_notebook_4_says_how_well_the_error_rates_are_known():
    (n,) = set(pd.read_csv(TABLE).n_tables)
    five, quarter = (196 * np.sqrt(share * (1 - share) / n) for share in (0.05, 0.25))
    said = (
        f"with {n:,} simulated tables a cell, 5 % is known to within {five:.1f} points and 25 % to "
        f"within {quarter:.1f}"
    )
    assert said in (NOTEBOOKS / "04_statistics.ipynb").read_text()


def test_the_page_on_statistics_shows_the_shipped_table():
    page = (ROOT / "docs" / "statistics.md").read_text()
    assert wrong_verdicts_markdown(pd.read_csv(TABLE)) in page
