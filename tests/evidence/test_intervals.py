import numpy as np
import pandas as pd
import pytest
from scipy import stats

from negmeta_utils.evidence.intervals import Estimate, estimate, over_episodes, over_seeds

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
    assert Estimate(1e9, ((1.0, 2), (1.0, 39))).p_above(0) < 1e-15
    assert np.isnan(estimate([2.0]).p_above(0)) and np.isnan(over_seeds(GRID[:1]).p_below(0))


@pytest.mark.parametrize("confidence", [1 - 0.05 / 6, 1 - 0.05 / 12])
def test_intervals_over_seeds_keep_their_promise_at_the_levels_holm_uses(confidence):
    """Means and mean squares of Gaussian grids, drawn from their known distributions."""
    rng, n, n_episodes = np.random.default_rng(1), 4000, 40
    for n_seeds in (3, 5):
        for seeds, episodes in ((1, 1), (2, 1), (5, 1), (1, 4)):  # expected, residual being 1
            size = n_seeds * n_episodes
            means = rng.standard_normal(n) * np.sqrt((seeds + episodes - 1) / size)
            errors = [
                np.sqrt(square * rng.chisquare(df, n) / df / size)
                for square, df in ((seeds, n_seeds - 1), (episodes, n_episodes - 1))
            ]
            half = [stats.t.ppf((1 + confidence) / 2, df) for df in (n_seeds - 1, n_episodes - 1)]
            missed = (np.abs(means) > np.hypot(errors[0] * half[0], errors[1] * half[1])).sum()
            assert missed <= stats.binom.ppf(0.999, n, 1 - confidence)
