from functools import partial

import numpy as np
import pandas as pd
import pytest
from random_tables import crossed, table
from scipy import stats

from negmeta_utils.evidence.interval_methods import compared
from negmeta_utils.evidence.intervals import (
    mean_interval,
    over_episodes,
    over_seeds,
)
from negmeta_utils.evidence.mixed_model import mixed_model
from negmeta_utils.evidence.power import seeds_to_decide_table
from negmeta_utils.evidence.quantities import (
    ACCURACIES,
    DIFFERENCE,
    MAML,
    META_SGD,
    QUANTITIES,
    changes,
    effect_sizes,
    grids,
    hierarchical_bootstrap,
    pairs_in_words,
)
from negmeta_utils.evidence.t_tests import paper_t_test, t_test_readings


def misses(interval):
    return interval.low > 0 or interval.high < 0


def test_mean_interval_equals_scipy():
    values = np.random.default_rng(1).normal(0.4, 0.1, 25)
    interval = mean_interval(values)
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(interval, (values.mean(), oracle.low, oracle.high))


def test_mean_interval_of_one_and_of_no_value():
    mean, low, high = mean_interval([0.5])
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_paper_t_test_by_hand():
    features = table(n_seeds=1)
    sample = {}
    for method in (MAML, META_SGD):
        rows = features[features.method == method]
        sample[method] = (rows.other_after - rows.same_after) / rows.same_before.mean() * 100
    x, y = sample[META_SGD].to_numpy(), sample[MAML].to_numpy()
    n, m = len(x), len(y)
    squares = ((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()
    t = (x.mean() - y.mean()) / np.sqrt(squares / (n + m - 2) * (1 / n + 1 / m))
    result = paper_t_test(features)
    assert result.statistic == pytest.approx(t)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(t), n + m - 2))
    assert result.difference == pytest.approx(x.mean() - y.mean())
    assert result.n == n + m


def test_readings_equal_scipy():
    features = table(n_seeds=2).sample(frac=1, random_state=0)
    of = {
        method: features[features.method == method].sort_values(["seed", "episode"])
        for method in (META_SGD, MAML)
    }

    def relative(column, subtracted):
        return [100 * (r[column] - r[subtracted]) / r.same_before.mean() for r in of.values()]

    alone = [100 * r.other_after / r.same_before.mean() for r in of.values()]

    tasks = [relative("other_after", name) for name in ("same_after", "other_before")]
    oracles = [
        stats.ttest_ind(*tasks[0]),
        stats.ttest_ind(*tasks[0], equal_var=False),
        stats.ttest_ind(*tasks[1]),
        stats.ttest_ind(*relative("other_after", "same_before")),
        stats.ttest_1samp(tasks[0][0].to_numpy() - tasks[0][1].to_numpy(), 0),
        stats.ttest_1samp(tasks[1][0].to_numpy() - tasks[1][1].to_numpy(), 0),
        stats.ttest_ind(*alone),
        stats.ttest_1samp(alone[0].to_numpy() - alone[1].to_numpy(), 0),
    ]
    readings = t_test_readings(features)
    assert list(readings) == ["reading", "statistic", "p_value", "n", "difference"]
    np.testing.assert_allclose(readings.statistic, [oracle.statistic for oracle in oracles])
    np.testing.assert_allclose(readings.p_value, [oracle.pvalue for oracle in oracles])
    assert list(readings.n) == [240, 240, 240, 240, 120, 120, 240, 120]
    pd.testing.assert_series_equal(readings.iloc[0], paper_t_test(features), check_names=False)


def test_changes_by_hand():
    rows = [
        (MAML, 7, 0, 0.50, 0.48, 0.60, 0.57, 0.52),
        (MAML, 7, 1, 0.30, 0.28, 0.40, 0.39, 0.32),
        (META_SGD, 7, 0, 0.50, 0.50, 0.60, 0.62, 0.51),
    ]
    features = pd.DataFrame(rows, columns=["method", "seed", "episode", *ACCURACIES])
    maml, meta_sgd = (row for _, row in changes(features).iterrows())
    assert (maml.method, maml.seed, maml.episodes) == (MAML, 7, 2)
    assert maml.pre_adaptation == pytest.approx(40)
    assert maml.ordinary == pytest.approx(42)
    assert maml.on_task == pytest.approx(-2)
    assert maml.off_task == pytest.approx(-2)
    assert maml.off_task_paper == pytest.approx(8)
    assert maml.off_task_relative == pytest.approx(-5)
    assert meta_sgd.on_task_relative == pytest.approx(0)
    assert meta_sgd.off_task_paper_relative == pytest.approx(24)


def test_changes_are_the_means_of_the_grids():
    features = table()
    models = changes(features).set_index(["method", "seed"])
    for column, quantity in (("on_task", "on-task change"), ("off_task", "off-task change")):
        grid = grids(features)[META_SGD, quantity]
        np.testing.assert_allclose(grid.mean(axis=1), models.loc[META_SGD, column])


def test_grids_pair_seeds_and_episodes():
    features = table()
    features = features[(features.method != MAML) | (features.seed != 1)]
    grid = grids(features)[DIFFERENCE, "off-task change"]
    assert list(grid.index) == [0, 2]
    cell = features[(features.seed == 2) & (features.episode == 5)].set_index("method")
    change = 100 * (cell.other_after - cell.other_before)
    assert grid.loc[2, 5] == pytest.approx(change[META_SGD] - change[MAML])


def test_rounding_dust_is_no_difference():
    features = table(n_seeds=1)
    features["same_before"], features["other_before"] = 0.1 + 0.2, 0.1 + 0.2
    features["same_after"], features["other_after"] = 0.3, 0.3
    assert (grids(features)[MAML, "on-task change"] == 0).all(axis=None)


def test_intervals_of_one_seed():
    grid = crossed(np.random.default_rng(2), 1, 50, 1, 1)
    oracle = stats.ttest_1samp(grid.loc[0], 0).confidence_interval()
    np.testing.assert_allclose(over_episodes(grid).interval()[1:], oracle)
    assert np.isnan(over_seeds(grid).interval()[1:]).all()


def test_interval_over_seeds_is_a_t_interval_where_episodes_do_not_differ():
    means = np.array([1.0, 2.0, 4.0, 4.5])
    grid = pd.DataFrame(np.repeat(means[:, None], 50, axis=1))
    oracle = stats.ttest_1samp(means, 0).confidence_interval()
    np.testing.assert_allclose(over_seeds(grid).interval()[1:], oracle)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("between_seeds", [0.0, 0.15, 1.0])
def test_interval_over_seeds_misses_at_most_5_percent(n_seeds, between_seeds):
    rng, n = np.random.default_rng(3), 1000
    missed = sum(
        misses(over_seeds(crossed(rng, n_seeds, 40, between_seeds, 1)).interval()) for _ in range(n)
    )
    # a true rate of 5 % exceeds this number of misses once in a thousand
    assert missed <= stats.binom.ppf(0.999, n, 0.05)


def test_intervals_over_one_axis_alone_overclaim():
    rng, n = np.random.default_rng(4), 300
    grid = [crossed(rng, 5, 40, 0.3, 1) for _ in range(n)]
    seeds_alone = sum(misses(mean_interval(g.mean(axis=1))) for g in grid)
    assert seeds_alone > stats.binom.ppf(0.999, n, 0.05)
    grid = [crossed(rng, 5, 40, 1, 0.3) for _ in range(n)]
    episodes_alone = sum(misses(over_episodes(g).interval()) for g in grid)
    assert episodes_alone > n / 2


def test_pairing_narrows_the_difference():
    features = table(n_seeds=1, n_episodes=400)
    of = grids(features)
    paired = over_episodes(of[DIFFERENCE, "pre-adaptation"]).interval()
    widths = [
        np.diff(over_episodes(of[method, "pre-adaptation"]).interval()[1:])[0]
        for method in (MAML, META_SGD)
    ]
    assert paired.high - paired.low < 0.7 * np.hypot(*widths)


def test_effect_sizes_by_hand():
    features = table(n_seeds=1, n_episodes=500)
    effects = effect_sizes(features).set_index(["method", "quantity", "over"])
    row = effects.loc[DIFFERENCE, "pre-adaptation", "episodes"]
    wide = features.pivot(index="episode", columns="method", values="same_before")
    values = 100 * (wide[META_SGD] - wide[MAML])
    assert row.points == pytest.approx(values.mean())
    assert row.d_z == pytest.approx(values.mean() / values.std())
    # the exact interval of d_z inverts the noncentral t distribution
    t = stats.ttest_1samp(values, 0).statistic
    for bound, level in ((row.d_z_low, 0.975), (row.d_z_high, 0.025)):
        assert stats.nct.cdf(t, 499, bound * np.sqrt(500)) == pytest.approx(level, abs=0.002)
    assert np.isnan(effects.loc[DIFFERENCE, "pre-adaptation", "seeds"].d_z_low)
    assert (MAML, "pre-adaptation", "seeds") not in effects.index


@pytest.mark.parametrize("n_shared", [0, 3])
def test_effects_of_seeds_that_are_not_the_same_are_by_welch(n_shared):
    features = table(n_seeds=5, n_episodes=40)
    of_maml = features.method == MAML
    features.loc[of_maml, "seed"] += 5 - n_shared
    effects = effect_sizes(features).set_index(["method", "quantity", "over"])
    by_seed = 100 * features.groupby(["method", "seed"])["same_before"].mean()
    by_episode = 100 * features.groupby(["method", "episode"])["same_before"].mean()
    of_seeds = effects.loc[DIFFERENCE, "pre-adaptation", "seeds"]
    welch = stats.ttest_ind(by_seed[META_SGD], by_seed[MAML], equal_var=False)
    low, high = welch.confidence_interval()
    assert of_seeds.points == pytest.approx(by_seed[META_SGD].mean() - by_seed[MAML].mean())
    # episodes in common are a second source of error
    assert of_seeds.low <= low + 1e-9 and of_seeds.high >= high - 1e-9
    row = effects.loc[DIFFERENCE, "pre-adaptation", "episodes"]
    paired = stats.ttest_1samp(by_episode[META_SGD] - by_episode[MAML], 0).confidence_interval()
    assert [row.low, row.high] == pytest.approx(list(paired))
    assert np.isnan(row.d_z) and (of_seeds.n, row.n) == (5, 40)
    assert len(effects.loc[DIFFERENCE]) == 2 * len(QUANTITIES)
    text = pairs_in_words(features)
    assert "by Welch" in text
    assert ("share 3." if n_shared else "share no seed.") in text


@pytest.mark.parametrize("of_both", [True, False])
def test_a_network_of_unknown_seed_is_no_sample_of_seeds(of_both):
    features = table(n_seeds=4, n_episodes=40)
    unknown = features.replace({"seed": {0: -1}})
    if not of_both:
        unknown = unknown[(unknown.method == MAML) | (unknown.seed >= 0)]
    effects = effect_sizes(unknown).set_index(["method", "quantity", "over"])
    known = effect_sizes(features[features.seed > 0]).set_index(["method", "quantity", "over"])
    for method in (MAML, META_SGD, DIFFERENCE):
        row = effects.loc[method, "off-task change", "seeds"]
        oracle = known.loc[method, "off-task change", "seeds"]
        assert row.n == 3 and row.points == pytest.approx(oracle.points)


@pytest.mark.parametrize("of_both", [True, False])
@pytest.mark.parametrize(
    "asked",
    [
        hierarchical_bootstrap,
        mixed_model,
        seeds_to_decide_table,
        partial(compared, quantity="off-task change", n_simulations=3),
    ],
)
def test_what_is_asked_over_seeds_leaves_out_a_network_of_unknown_seed(asked, of_both):
    features = table(n_seeds=4, n_episodes=40)
    known = features[features.seed > 0]
    unknown = features.replace({"seed": {0: -1}})
    if not of_both:
        unknown = unknown[(unknown.method == MAML) | (unknown.seed >= 0)]
    pd.testing.assert_frame_equal(asked(unknown), asked(known))
    for all_unknown in (
        features[features.seed == 0].assign(seed=-1),
        features.replace({"seed": {s: -1 - s for s in range(4)}}),
    ):
        alone = asked(all_unknown)
        assert len(alone) == len(asked(known))
        assert "n_seeds" not in alone or set(alone["n_seeds"]) == {1}
        assert "low" not in alone or alone["low"].isna().any()


def test_methods_with_the_same_seeds_are_said_to_be_paired():
    assert pairs_in_words(table()).endswith("are compared in pairs.")
    assert "so nothing is compared" in pairs_in_words(table(methods=(MAML,)))


def test_effect_size_does_not_grow_with_the_number_of_seeds():
    d_z = {}
    for n_seeds in (1, 8):
        features = table(n_seeds, 300)
        features.loc[features.method == META_SGD, "other_after"] += 0.05
        effects = effect_sizes(features).set_index(["method", "quantity", "over"])
        d_z[n_seeds] = effects.loc[DIFFERENCE, "off-task change", "episodes"].d_z
    assert d_z[8] == pytest.approx(d_z[1], rel=0.25)


def test_bootstrap_equals_brute_force():
    features = table(n_seeds=6, n_episodes=30)
    result = hierarchical_bootstrap(features, n_resamples=4000).set_index(["method", "quantity"])
    row = result.loc[DIFFERENCE, "off-task change"]
    values = grids(features)[DIFFERENCE, "off-task change"].to_numpy()
    rng = np.random.default_rng(5)
    means = []
    for _ in range(4000):
        seeds, episodes = rng.integers(6, size=6), rng.integers(30, size=30)
        means.append(values[np.ix_(seeds, episodes)].mean())
    spread = np.std(means)
    assert row["mean"] == pytest.approx(values.mean())
    # the 2.5 % quantile of 4,000 draws has a standard error of 0.04 standard deviations
    np.testing.assert_allclose(
        row[["low", "high"]].tolist(), np.quantile(means, [0.025, 0.975]), atol=0.2 * spread
    )


def test_bootstrap_seed_is_used():
    features = table()
    first = hierarchical_bootstrap(features, 200, seed=1)
    pd.testing.assert_frame_equal(first, hierarchical_bootstrap(features, 200, seed=1))
    other = hierarchical_bootstrap(features, 200, seed=2)
    assert (first["mean"] == other["mean"]).all()
    assert (first.low != other.low).any() and (first.high != other.high).any()


def test_bootstrap_of_one_seed_has_no_interval():
    result = hierarchical_bootstrap(table(n_seeds=1), 50)
    assert result.low.isna().all() and result.high.isna().all()


def test_bootstrap_draws_episodes_once_for_both_methods():
    features = table(n_seeds=1)
    twin = features[features.method == MAML]
    shifted = twin.assign(method=META_SGD, same_before=twin.same_before + 0.02)
    both = pd.concat([frame.assign(seed=s) for frame in (twin, shifted) for s in (0, 1)])
    row = hierarchical_bootstrap(both, 100).set_index(["method", "quantity"])
    assert row.loc[DIFFERENCE, "pre-adaptation"].high == pytest.approx(2)
    gap = row.loc[META_SGD, "pre-adaptation"].low - row.loc[MAML, "pre-adaptation"].low
    assert gap == pytest.approx(2)


@pytest.mark.parametrize("function", [changes, effect_sizes, hierarchical_bootstrap])
def test_order_of_rows_does_not_matter(function):
    features = table()
    shuffled = features.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(function(features), function(shuffled))


def test_one_method_alone_is_described_without_differences():
    features = table(methods=(MAML,))
    assert set(effect_sizes(features).method) == {MAML}
    with pytest.raises(ValueError, match="no rows of meta-sgd"):
        paper_t_test(features)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns=["ordinary", "seed"]), "missing column.s. seed, ordinary"),
        (lambda f: f.assign(ordinary=np.nan), "missing values"),
        (lambda f: pd.concat([f, f.head(1)]), "repeated rows"),
        (lambda f: f.drop(index=0), "maml has seeds of unequal episodes"),
        (lambda f: f[(f.method == MAML) | (f.episode < 9)], "methods differ in their episodes"),
    ],
)
def test_unusable_tables_are_refused_in_one_line(spoil, message):
    with pytest.raises(ValueError, match=message) as error:
        grids(spoil(table()))
    assert "\n" not in str(error.value)
