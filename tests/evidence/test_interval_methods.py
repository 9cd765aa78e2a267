import numpy as np
import pandas as pd
import pytest
from random_tables import NONE, synthetic, table
from scipy import stats

from negmeta_utils.evidence.interval_methods import INTERVALS, compared, misses_by_interval
from negmeta_utils.evidence.intervals import over_episodes, over_seeds
from negmeta_utils.evidence.mixed_model import mixed_model
from negmeta_utils.evidence.quantities import (
    DIFFERENCE,
    MAML,
    META_SGD,
    bootstrap_interval,
    grids,
    hierarchical_bootstrap,
)

POOLED, EPISODES, SEEDS_ALONE, BOOTSTRAP, MIXED, VERDICTS = INTERVALS


def bounds(row):
    return row[["mean", "low", "high"]].astype(float).tolist()


def test_every_interval_is_the_one_of_its_own_function():
    features, quantity = table(n_seeds=4), "off-task change"
    rows = compared(features, quantity, n_simulations=1).set_index("interval")
    of = grids(features)
    x, y = (of[method, quantity].to_numpy().ravel() for method in (META_SGD, MAML))
    pooled = stats.ttest_ind(x, y).confidence_interval()
    assert bounds(rows.loc[POOLED])[1:] == pytest.approx(list(pooled))
    alone = stats.ttest_1samp(of[DIFFERENCE, quantity].mean(axis=1), 0).confidence_interval()
    assert bounds(rows.loc[SEEDS_ALONE])[1:] == pytest.approx(list(alone))
    for name, over in ((EPISODES, over_episodes), (VERDICTS, over_seeds)):
        assert bounds(rows.loc[name]) == pytest.approx(over(of[DIFFERENCE, quantity]).interval())
    mixed = mixed_model(features).set_index(["method", "quantity"]).loc[DIFFERENCE, quantity]
    assert bounds(rows.loc[MIXED]) == pytest.approx(bounds(mixed))
    assert np.ptp(rows["mean"]) < 1e-9


@pytest.mark.slow
def test_misses_tell_which_intervals_hold_for_the_methods():
    """Networks that differ far more than episodes explain, but no difference of the methods."""
    features = synthetic(np.random.default_rng(0), NONE, n_seeds=6, between_seeds=3)
    n = 100
    misses = compared(features, "on-task change", n).set_index("interval").misses
    allowed = stats.binom.ppf(0.999, n, 0.05) / n
    assert misses[VERDICTS] <= allowed
    assert misses[SEEDS_ALONE] <= allowed
    assert misses[POOLED] > 0.3 and misses[EPISODES] > 0.3


@pytest.mark.slow
def test_the_seed_is_used():
    features = table()
    first, again, other = (compared(features, "off-task change", 5, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    changed = (first.low != other.low) & (first.high != other.high)
    assert list(first.interval[changed]) == [BOOTSTRAP]


def test_the_bootstrap_of_one_grid_is_that_of_the_table():
    features = table(n_seeds=6, n_episodes=40)
    of_all = hierarchical_bootstrap(features, 4000).set_index(["method", "quantity"])
    row = of_all.loc[DIFFERENCE, "off-task change"]
    grid = grids(features)[DIFFERENCE, "off-task change"]
    one = bootstrap_interval(grid, 4000, seed=1)
    np.testing.assert_allclose(one, bounds(row), atol=0.1 * (row.high - row.low))
    assert bootstrap_interval(grid, 200, seed=1) == bootstrap_interval(grid, 200, seed=1)
    assert bootstrap_interval(grid, 200, seed=1) != bootstrap_interval(grid, 200, seed=2)


def test_one_seed_leaves_intervals_over_episodes():
    rows = compared(table(n_seeds=1), "off-task change").set_index("interval")
    assert rows.low[[POOLED, EPISODES]].notna().all()
    assert rows.low[[SEEDS_ALONE, BOOTSTRAP, MIXED, VERDICTS]].isna().all()
    assert rows.misses.isna().all()


@pytest.mark.slow
def test_misses_side_by_side_are_those_of_each_quantity():
    features, quantities = table(n_episodes=30), ["on-task change", "off-task change"]
    each = {q: compared(features, q, 20) for q in quantities}
    wide = misses_by_interval(pd.concat([found.assign(quantity=q) for q, found in each.items()]))
    assert list(wide) == ["interval", "drawn", *quantities] and list(wide.interval) == [*INTERVALS]
    for quantity, found in each.items():
        assert list(wide[quantity]) == list(found.misses)


def test_two_networks_of_unknown_seed_are_no_pair():
    features = table(n_seeds=1, n_episodes=40)
    unknown = features.assign(seed=features["method"].map({"maml": -5, "meta-sgd": -9}))
    assert compared(unknown, "off-task change", n_simulations=3).empty


def test_without_a_shared_seed_nothing_is_compared_in_pairs():
    features = table()
    features.loc[features.method == MAML, "seed"] += 10
    found = compared(features, "off-task change")
    assert found.empty
    assert misses_by_interval(found.assign(quantity="off-task change")).empty
