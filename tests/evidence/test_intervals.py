import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.weightstats import ttost_paired

from negmeta_utils.evidence.intervals import (
    Estimate,
    Source,
    estimate,
    over_episodes,
    over_seeds,
    over_unshared_seeds,
    without_skewness,
)

GRID = pd.DataFrame(
    np.random.default_rng(0).normal(0.4, 1, (4, 30)) + np.array([[-1], [0], [1], [0.5]])
)


def test_p_values_of_independent_values_are_those_of_a_t_test():
    values = GRID.loc[0]
    one = estimate(values)
    for bound in (-1, -0.5, 0.3):
        above = stats.ttest_1samp(values, bound, alternative="greater").pvalue
        assert one.p_above(bound) == pytest.approx(above)
        assert one.p_below(bound) == pytest.approx(1 - above)
        assert one.p_different(bound) == pytest.approx(stats.ttest_1samp(values, bound).pvalue)


@pytest.mark.parametrize("over", [over_episodes, over_seeds])
@pytest.mark.parametrize("p", [0.4, 0.025, 1e-4, 1e-9])
def test_the_p_value_of_an_intervals_end_is_its_tail(over, p):
    low, high = over(GRID).interval(1 - 2 * p)[1:]
    # 1 - 2p itself is rounded to 1e-16
    assert over(GRID).p_above(low) == pytest.approx(p, rel=1e-6)
    assert over(GRID).p_below(high) == pytest.approx(p, rel=1e-6)


def test_both_sides_add_up_to_one():
    for bound in np.linspace(-3, 3, 13):
        one = over_seeds(GRID)
        assert one.p_above(bound) + one.p_below(bound) == pytest.approx(1)


def test_p_values_at_the_ends_of_the_scale():
    exact = estimate([2.0, 2.0, 2.0])
    assert (exact.p_above(1), exact.p_above(2), exact.p_above(3)) == (0, 0.5, 1)
    assert exact.p_different(2) == 1
    assert over_seeds(pd.DataFrame(np.full((3, 5), 2.0))).p_above(1) == 0
    assert Estimate(1e9, (Source(1.0, 2), Source(1.0, 39))).p_above(0) < 1e-15
    assert np.isnan(estimate([2.0]).p_above(0)) and np.isnan(over_seeds(GRID[:1]).p_below(0))


@pytest.mark.parametrize("confidence", [0.95, 1 - 0.05 / 6, 1 - 0.05 / 12])
def test_intervals_over_seeds_keep_their_promise_at_the_levels_holm_uses(confidence):
    """Means and mean squares of Gaussian grids, drawn from their known distributions."""
    rng, n, n_episodes = np.random.default_rng(1), 4000, 40
    missed = {}
    for n_seeds in (3, 5, 12):
        for seeds, episodes in ((1, 1), (2, 1), (5, 1), (1, 4)):  # expected, residual being 1
            size = n_seeds * n_episodes
            means = rng.standard_normal(n) * np.sqrt((seeds + episodes - 1) / size)
            dfs = n_seeds - 1, n_episodes - 1, (n_seeds - 1) * (n_episodes - 1)
            expected = zip((seeds, episodes, 1), dfs, strict=True)
            of_seeds, of_episodes, rest = (e * rng.chisquare(df, n) / df for e, df in expected)
            of_episodes = np.maximum(0, of_episodes - rest)
            t = [stats.t.ppf((1 + confidence) / 2, df) for df in dfs]
            half = np.sqrt((t[0] ** 2 * of_seeds + t[1] ** 2 * of_episodes) / size)
            missed[n_seeds, seeds, episodes] = (np.abs(means) > half).sum()
    assert max(missed.values()) <= stats.binom.ppf(0.999, n, 1 - confidence)
    if confidence == 0.95:  # and not much less than promised where seeds do not vary
        assert all(missed[n_seeds, 1, 1] > 0.03 * n for n_seeds in (3, 5, 12))


def test_the_sources_of_a_grid_by_hand():
    grid = GRID + np.random.default_rng(2).standard_normal(30)
    values, (n_seeds, n_episodes) = grid.to_numpy(), grid.shape
    seeds, episodes = over_seeds(grid).errors
    assert seeds.error == pytest.approx(stats.sem(values.mean(axis=1)))
    long = grid.stack().rename("y").rename_axis(["s", "e"]).reset_index()
    fitted = ols("y ~ C(s) + C(e)", long).fit()
    square = stats.sem(values.mean(axis=0)) ** 2 - fitted.mse_resid / values.size
    assert episodes.error == pytest.approx(np.sqrt(square))
    assert (seeds.df, episodes.df) == (n_seeds - 1, n_episodes - 1)


def test_seeds_that_are_not_shared_are_compared_by_welch():
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 1, (4, 1)), rng.normal(0, 3, (7, 1))
    flat = [pd.DataFrame(np.repeat(v, 30, axis=1)) for v in (x, y)]  # episodes do not vary
    one = over_unshared_seeds(*flat)
    oracle = stats.ttest_ind(x.ravel(), y.ravel(), equal_var=False)
    assert one.p_different(0) == pytest.approx(oracle.pvalue, rel=1e-6)
    assert one.interval()[1:] == pytest.approx(tuple(oracle.confidence_interval()))


@pytest.mark.slow
def test_seeds_that_are_not_shared_keep_the_promise():
    rng, n, missed = np.random.default_rng(4), 1500, 0
    for _ in range(n):
        episodes = rng.standard_normal(40)
        first, second = (
            pd.DataFrame(
                spread * rng.standard_normal((n_seeds, 1)) + episodes
                + 0.5 * rng.standard_normal(40) + rng.standard_normal((n_seeds, 40))
            )
            for n_seeds, spread in ((4, 1), (7, 0.2))
        )  # fmt: skip
        interval = over_unshared_seeds(first, second).interval()
        missed += interval.low > 0 or interval.high < 0
    assert stats.binom.ppf(0.001, n, 0.02) <= missed <= stats.binom.ppf(0.999, n, 0.05)


def test_the_correction_for_skewness_inverts_halls_transformation():
    for skewness in (-0.8, -0.1, 0.3, 1.2):
        for t in (-2.5, 0.0, 1.5, 2.5):
            u = without_skewness(t, skewness)
            hall = u + skewness * u**2 / 3 + skewness**2 * u**3 / 27 + skewness / 6
            assert hall == pytest.approx(t)


def test_the_skewness_of_a_mean_and_of_a_difference():
    """Against the third moments of resampled means."""
    rng = np.random.default_rng(5)
    x, y = rng.exponential(size=12), 2 * rng.exponential(size=9)
    ((_, _, one),) = estimate(x, skewed=True).errors
    assert one == pytest.approx(stats.skew(x, bias=False) / np.sqrt(12))
    grids = [pd.DataFrame(np.repeat(v[:, None], 30, axis=1)) for v in (x, y)]
    two = over_unshared_seeds(*grids, skewed=True).errors[0].skewness
    means = [rng.choice(v, (200_000, len(v))).mean(axis=1) for v in (x, y)]
    # resampling has the biased moments: correct each group's spread and skewness for that
    spread = [v.std(ddof=1) / v.std() for v in (x, y)]
    third = [
        s.std() ** 3 * stats.skew(s) * stats.skew(v, bias=False) / stats.skew(v) * r**3
        for s, v, r in zip(means, (x, y), spread, strict=True)
    ]
    total = sum((s.std() * r) ** 2 for s, r in zip(means, spread, strict=True))
    assert two == pytest.approx((third[0] - third[1]) / total**1.5, abs=0.02)
    assert over_unshared_seeds(*grids[::-1], skewed=True).errors[0].skewness == pytest.approx(-two)


@pytest.mark.slow
def test_the_correction_holds_for_exponential_seeds_where_t_does_not():
    rng, n = np.random.default_rng(7), 3000
    missed = {False: 0, True: 0}
    for _ in range(n):
        values = rng.exponential(size=8) - 1
        for skewed in missed:
            interval = estimate(values, skewed).interval()
            missed[skewed] += interval.low > 0 or interval.high < 0
    assert missed[True] <= stats.binom.ppf(0.999, n, 0.055)
    assert missed[False] > 0.08 * n
    plain, wide = (estimate(np.arange(8) ** 3, skewed).interval() for skewed in (False, True))
    assert wide.high > plain.high and wide.low == plain.low


def test_p_values_and_intervals_agree_under_skewness():
    one = estimate(np.exp(np.random.default_rng(9).standard_normal(9)), skewed=True)
    for p in (0.2, 0.025, 1e-4):
        low, high = one.interval(1 - 2 * p)[1:]
        assert one.p_above(low) == pytest.approx(p) and one.p_below(high) == pytest.approx(p)
    assert one.p_above(one.mean) == one.p_below(one.mean) == 0.5


def test_equivalence_is_two_one_sided_tests():
    values = np.random.default_rng(8).normal(0.1, 0.3, 20)
    for margin in (0.1, 0.2, 0.4):
        oracle = ttost_paired(values, np.zeros(20), -margin, margin)[0]
        assert estimate(values).p_outside(margin) == pytest.approx(oracle)
