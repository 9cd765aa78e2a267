import numpy as np
import pandas as pd
import pytest
from random_tables import crossed, table
from scipy import stats

from negmeta_utils.evidence.interval_methods import draw
from negmeta_utils.evidence.intervals import over_seeds
from negmeta_utils.evidence.mixed_model import Components, fit
from negmeta_utils.evidence.power import (
    PAPER_EFFECTS,
    in_words,
    power,
    power_table,
    seeds_needed,
    seeds_needed_table,
    seeds_to_decide,
    seeds_to_decide_table,
)
from negmeta_utils.evidence.quantities import DIFFERENCE, grids

COMPONENTS = Components(0.25, 1.0, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "n_episodes", "effect"), [(3, 20, 1.5), (6, 40, -0.8)])
def test_power_is_what_simulated_verdicts_show(n_seeds, n_episodes, effect):
    rng, n = np.random.default_rng(0), 800
    shown = 0
    for _ in range(n):
        interval = over_seeds(draw(COMPONENTS, (n_seeds, n_episodes), rng) + effect).interval()
        shown += interval.low > 0 if effect > 0 else interval.high < 0
    expected = power(COMPONENTS, effect, n_seeds, n_episodes)
    assert 0.3 < expected < 0.9
    low, high = stats.binom.ppf([0.0005, 0.9995], n, expected)
    assert low <= shown <= high


def test_power_with_nothing_but_seeds_is_that_of_a_t_test():
    """Without variance of episodes and residual the rule is Student's test over seeds."""
    effect, n_seeds = 1.2, 6
    for_t = stats.nct.sf(stats.t.ppf(0.975, n_seeds - 1), n_seeds - 1, effect * np.sqrt(n_seeds))
    assert power(Components(1, 0, 0), effect, n_seeds, 30) == pytest.approx(for_t, abs=1e-3)


def test_power_at_its_ends():
    assert power(Components(0, 0, 0), 0.1, 3, 30) == 1
    assert power(Components(0, 0, 0), 0, 3, 30) == 0
    assert power(COMPONENTS, 0, 3, 30) < 0.025
    assert np.isnan(power(Components(*[np.nan] * 3), 1, 3, 30))


def test_the_table_grows_with_seeds_and_episodes():
    grid = crossed(np.random.default_rng(1), 6, 100, 0.3, 0.5)
    found = power_table(grid, 0.5, [3, 6, 12, 24], [50, 200, 1000])
    assert list(found) == ["n_seeds", "n_episodes", "power"]
    wide = found.pivot(index="n_seeds", columns="n_episodes", values="power")
    assert (wide.diff().iloc[1:] > 0).all(axis=None)
    assert (wide.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    row = found[(found.n_seeds == 12) & (found.n_episodes == 200)]
    assert row.power.item() == power(fit(grid).components, 0.5, 12, 200)


def test_seeds_needed_is_the_smallest_number():
    grid = crossed(np.random.default_rng(2), 6, 100, 0.3, 0.5)
    needed = seeds_needed(grid, 0.4, 500)
    assert needed > 3
    components = fit(grid).components
    assert power(components, 0.4, needed, 500) >= 0.8 > power(components, 0.4, needed - 1, 500)
    assert seeds_needed(grid, 100, 500) == 5  # the least with which methods are judged


def test_no_number_of_seeds_makes_up_for_few_episodes():
    grid = crossed(np.random.default_rng(3), 6, 100, 0.3, 2)
    assert seeds_needed(grid, 0.1, 100) == np.inf
    assert seeds_needed(grid, 0.1, 40_000) < np.inf


def test_seeds_to_decide_an_effect_of_the_measured_size():
    grid = crossed(np.random.default_rng(4), 4, 400, 0.5, 0.5)
    grid += 0.4 - grid.to_numpy().mean()
    assert seeds_to_decide(grid) == seeds_needed(grid, 0.4, 400) == seeds_to_decide(-grid)
    assert seeds_to_decide(grid - 0.4 + 1e-6) == np.inf
    assert seeds_to_decide(grid[:1]) is None
    assert in_words(0) == "no effect to show"
    assert seeds_to_decide(0 * grid) == 0
    assert seeds_to_decide(pd.DataFrame([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])) == 0
    assert seeds_to_decide(pd.DataFrame([[0.1, 0.2, -0.3], [0.1, 0.2, -0.3 + 1e-16]])) == 0


@pytest.mark.slow
def test_the_range_of_seeds_needed_has_that_of_the_variance_between_seeds():
    """Over many grids, the range holds the number that the true variances ask for."""
    rng, n = np.random.default_rng(5), 60
    truth, shape = Components(0.25, 0.5, 1), (5, 400)
    needed = next(i for i in range(3, 999) if power(truth, 0.5, i, 400) >= 0.8)
    held = 0
    for _ in range(n):
        row = seeds_needed_table(draw(truth, shape, rng), 0.5, [400]).iloc[0]
        assert row.low <= row.n_seeds <= row.high
        held += row.low <= needed <= row.high
    assert held >= stats.binom.ppf(0.001, n, 0.95)


def test_the_table_of_what_would_decide():
    features = table(n_seeds=4)
    rows = seeds_to_decide_table(features).set_index(["method", "quantity"])
    assert len(rows) == 7
    for quantity in ("off-task change", "pre-adaptation"):
        row = rows.loc[DIFFERENCE, quantity]
        grid = grids(features)[DIFFERENCE, quantity]
        assert row.points == pytest.approx(grid.to_numpy().mean())
        assert (row.n_seeds, row.n_episodes) == (4, 60)
        assert row.seeds_to_decide == in_words(seeds_to_decide(grid))


def test_the_paper_has_these_effects():
    """-0.3 % of 46 % and +0.2 % of 47 %, in points."""
    assert PAPER_EFFECTS["meta-sgd"] == pytest.approx(0.094)
    assert PAPER_EFFECTS[DIFFERENCE] == pytest.approx(0.094 + 0.138)


def test_numbers_of_seeds_in_words():
    assert in_words(12) == in_words(12.0) == "12"
    assert in_words(1234) == "1,234"
    assert in_words(np.inf) == "more episodes needed"
    assert in_words(None) == in_words(np.nan) == "unknown from one seed"  # pandas makes None NaN
