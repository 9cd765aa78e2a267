from itertools import product

import numpy as np
import pandas as pd
import pytest
from random_tables import rates_table
from scipy import stats

from negmeta_utils.evidence import error_rates as simulated
from negmeta_utils.evidence.claims import claims
from negmeta_utils.evidence.error_rates import (
    CASES,
    LEFT_OUT,
    SEEDS,
    TABLE,
    draw_grid,
    error_rates,
    wrong_verdicts,
)
from negmeta_utils.evidence.rules import PARTS, UNDECIDED
from negmeta_utils.model import LAYERS
from negmeta_utils.storage.paths import ROOT
from negmeta_utils.studies.study_file import NOTEBOOKS

METHODS = ("maml", "meta-sgd")


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
    cells = product(SEEDS, [3, 5, 8, 12], [300, 40_000], CASES)
    assert len(table) == sum(CASES[name].is_simulated(kind, n) for kind, n, _, name in cells)
    assert not table.duplicated(["seeds", "n_seeds", "n_episodes", "case"]).any()
    assert (table.wrong <= table.definite).all()
    allowed = {"Gaussian": 0.05, LEFT_OUT: 0.05, "exponential": 0.08, "lognormal": 0.13}
    together = table.case.map(lambda name: len(CASES[name].claims) > 1 and not CASES[name].holm)
    for kind, rate in allowed.items():
        rows = table[(table.seeds == kind) & ~together]
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


QUANTITIES = ("off-task change", "on-task change", "pre-adaptation")  # as they are drawn


@pytest.mark.slow
@pytest.mark.parametrize("holm", [False, True])
def test_several_claims_are_judged_as_by_claims_on_the_same_tables(monkeypatch, holm):
    case = CASES["any of (c) to (f), no effect" + ", by Holm" * holm]
    drawn = remembered(monkeypatch)
    for seed in range(20):
        found = simulated._verdicts(np.random.default_rng(seed), "exponential", 8, 300, case)
        table = claims(features(dict(zip(product(METHODS, QUANTITIES), drawn, strict=True))), None)
        lost = table["note"].str.contains("methods: not by Holm") & holm
        judged = table["methods"].where(~lost, UNDECIDED)[table["claim"].isin(list("cdef"))]
        assert found == judged.tolist(), seed
        drawn.clear()


@pytest.mark.slow
def test_two_looks_are_those_of_claims_at_the_same_tables(monkeypatch):
    case = CASES["(f), no effect, looks at 8 and 12 seeds"]
    drawn = remembered(monkeypatch)
    for seed in range(20):
        found = simulated._verdicts(np.random.default_rng(seed), "exponential", 12, 300, case)
        (grid,) = drawn
        still = dict.fromkeys(product(METHODS, QUANTITIES), 0 * grid)
        table = features(still | {("meta-sgd", "off-task change"): grid})
        judged = [claims(table[table["seed"] < n], None, [8, 12]) for n in (8, 12)]
        assert found == [of.set_index("claim").methods["f"] for of in judged], seed
        drawn.clear()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["(b), at a bound", "(d), at the margins", "(e), at the margins"])
def test_a_single_claim_is_judged_as_by_claims_on_the_same_table(monkeypatch, case):
    claim, truths = CASES[case].claims, CASES[case].truths
    parts = list(dict.fromkeys(part[:2] for part in PARTS[claim]))
    drawn = remembered(monkeypatch)
    for seed in range(20):
        found = simulated._verdicts(np.random.default_rng(seed), "exponential", 8, 300, CASES[case])
        still = dict.fromkeys(product(METHODS, (*QUANTITIES, "without head")), 0 * drawn[0])
        of = {part: grid + truth for part, grid, truth in zip(parts, drawn, truths, strict=True)}
        judged = claims(features(still | of), None).set_index("claim").methods[claim]
        assert found == [judged], seed
        drawn.clear()


@pytest.mark.parametrize("kind", ["exponential", "one in ten collapsed"])
def test_rates_are_judged_as_by_claims_on_the_same_table(kind):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = simulated._verdicts(rng, kind, 8, 300, CASES["(a), no effect"])
        rng = np.random.default_rng(seed)
        rates = rates_table(np.transpose([SEEDS[kind](rng, 8) for _ in LAYERS]))
        assert found == [claims(None, rates).set_index("claim").methods["a"]], seed


def remembered(monkeypatch):
    """The grids that a simulation draws."""
    drawn = []

    def draw(*arguments):
        drawn.append(draw_grid(*arguments))
        return drawn[-1]

    monkeypatch.setattr(simulated, "draw_grid", draw)
    return drawn


def features(of):
    """A features table whose changes, in points, are these grids, by method and quantity."""
    tables = []
    for method in METHODS:
        off_task, on_task, before = (of[method, q].stack() / 100 for q in QUANTITIES)
        table = pd.DataFrame({"same_before": 0.5 + before, "ordinary": 0.5 + before})
        if (method, "without head") in of:
            table["ordinary"] -= of[method, "without head"].stack() / 100
        table["same_after"] = table["same_before"] + on_task
        table["other_before"], table["other_after"] = 0.5, 0.5 + off_task
        named = table.rename_axis(["seed", "episode"]).reset_index()
        tables.append(named.assign(method=method))
    return pd.concat(tables)


def test_notebook_4_says_how_well_the_error_rates_are_known():
    (n,) = set(pd.read_csv(TABLE).n_tables)
    five, quarter = (196 * np.sqrt(share * (1 - share) / n) for share in (0.05, 0.25))
    said = (
        f"with {n:,} simulated tables a cell, 5 % is known to within {five:.1f} points and 25 % to "
        f"within {quarter:.1f}"
    )
    assert said in (NOTEBOOKS / "04_statistics.ipynb").read_text()


def test_how_often_several_claims_and_looks_err_is_what_the_table_says():
    table = pd.read_csv(TABLE).query("seeds == 'Gaussian' and n_seeds >= 5")
    wrong = (100 * table["wrong"]).groupby(table["case"]).agg(["min", "max"])
    any_of, holm = (wrong.loc["any of (c) to (f), no effect" + h] for h in ("", ", by Holm"))
    looks = wrong.loc["(f), no effect, looks at 8 and 12 seeds"]
    said = (
        f"a wrong sign among the four is {any_of['min']:.0f} to {any_of['max']:.0f} % likely, one "
        f"that survives Holm's correction at most {holm['max']:.1f} %; the two looks together are "
        f"wrong {looks['min']:.1f} to {looks['max']:.1f} % of the time, and at a margin at most "
        f"{wrong.loc[[case for case in CASES if case.endswith(', looks')], 'max'].max():.1f} %."
    )
    page = (ROOT / "docs" / "statistics.md").read_text()
    assert said in page and said in (NOTEBOOKS / "04_statistics.ipynb").read_text()


def test_the_page_on_statistics_shows_the_shipped_table():
    wide = 100 * wrong_verdicts(pd.read_csv(TABLE))
    wide = wide.map("{:.1f}".format, na_action="ignore").fillna("")
    wide.columns = [f"{episodes:,}; {seeds}" for episodes, seeds in wide.columns]
    shown = wide.reset_index().to_markdown(index=False, disable_numparse=True)
    assert f"{shown}\n" in (ROOT / "docs" / "statistics.md").read_text()
