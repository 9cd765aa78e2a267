import interval_misses
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.stats import mstats

from negmeta_utils.evidence.error_rates import TABLE
from negmeta_utils.evidence.intervals import estimate
from negmeta_utils.evidence.rules import RULES
from negmeta_utils.storage.paths import ROOT

FOLDER = ROOT / "figures" / "interval-misses"
PAGE = (ROOT / "docs" / "statistics.md").read_text()
COLUMNS = [
    "Student's t", "with Hall's correction", "studentised bootstrap", "t on trimmed means",
    "sign test",
]  # fmt: skip


@pytest.mark.parametrize(("n", "cut"), [(5, 1), (12, 2)])
def test_intervals_miss_where_those_of_the_package_and_of_scipy_do(n, cut):
    values = np.random.default_rng(n).exponential(size=(100, n)) - 1
    found = interval_misses.misses(values)
    for i, sample in enumerate(values):
        for method, skewed in (("Student's t", False), ("with Hall's correction", True)):
            _, low, high = estimate(sample, skewed=skewed).interval()
            assert found[method][i] == (low > 0 or high < 0)
        p = stats.binomtest(int((sample > 0).sum()), n).pvalue
        assert found["sign test"][i] == (p <= 0.05)
        share = cut / n + 1e-9  # of the values, cut at either end
        trimmed = stats.trim_mean(sample, share) / mstats.trimmed_stde(sample, (share, share))
        df = n - 2 * cut - 1
        assert found["t on trimmed means"][i] == (abs(trimmed) > stats.t.ppf(0.975, df))
    assert 0 < found["with Hall's correction"].mean() < found["Student's t"].mean()


@pytest.mark.slow
def test_rows_of_the_shipped_tables_are_computed_again():
    shipped = pd.read_csv(FOLDER / "seeds.csv").set_index(["seeds", "number"])
    again = interval_misses.of_seeds("exponential", 5)
    for method, share in again.items():
        assert shipped.loc[("exponential", 5), method] == pytest.approx(share, abs=1e-3)
    grids = pd.read_csv(FOLDER / "grids.csv")
    *cell, misses = grids.iloc[10]
    assert interval_misses.of_grids(*map(int, cell)) == pytest.approx(misses, abs=1e-4)


def test_the_page_on_statistics_shows_how_often_intervals_miss():
    table = pd.read_csv(FOLDER / "seeds.csv")
    assert f"| seeds | number | {' | '.join(COLUMNS)} |" in PAGE
    for row in table.to_dict("records"):
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in COLUMNS)
        assert f"  | {row['seeds']} | {row['number']} | {shares} |\n" in PAGE
    student = 100 * table.set_index(["seeds", "number"])["Student's t"]
    said = {kind: student[kind].loc[[5, 8, 12]].round() for kind in ("exponential", "lognormal")}
    exponential, lognormal = (f"{x.min():.0f} to {x.max():.0f} %" for x in said.values())
    assert f"{exponential} of the time for exponential seeds and {lognormal} for lognormal" in PAGE
    assert (
        f"5 % becomes {exponential} for seeds distributed\nexponentially and {lognormal} " in RULES
    )
    three = [student[kind, 3] for kind in ("exponential", "lognormal")]
    assert f"misses {three[0]:.0f} % for exponential and {three[1]:.0f} % for lognormal" in PAGE
    grids = 100 * pd.read_csv(FOLDER / "grids.csv")["misses"]
    assert f"miss the truth {grids.min():.1f} to {grids.max():.1f} % of the time" in PAGE


def test_the_page_on_statistics_says_how_often_the_rules_err_with_skewed_seeds():
    table = pd.read_csv(TABLE).query("n_seeds >= 5").assign(wrong=lambda rows: 100 * rows["wrong"])
    wrong = table.groupby(["case", "seeds", "n_episodes"])["wrong"].agg(["min", "max"])
    rows = [wrong.loc["(f), no effect", kind, 40_000] for kind in ("exponential", "lognormal")]
    (low, high), (least, most) = ([f"{row['min']:.0f}", f"{row['max']:.0f}"] for row in rows)
    assert least == most
    assert f"it is {low} to {high} % for exponential and {most} % for lognormal ones" in PAGE
    worst = table.groupby(["case", "seeds"])["wrong"].max()
    none = [worst["(f), at the margin", kind] for kind in ("exponential", "lognormal")]
    assert f'for "no such effect" up to {none[0]:.0f} and {none[1]:.0f} %' in PAGE
    assert round(worst["(f), no effect", "one in ten collapsed"]) == 25
    assert "make a quarter of the intervals miss" in PAGE
