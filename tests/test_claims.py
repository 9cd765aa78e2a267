import numpy as np
import pandas as pd
import pytest
from scipy import stats

from negmeta_utils.claims import (
    CONTRADICTED,
    NOT_MEASURED,
    PARTS,
    RATE_SIGNS,
    REPRODUCED,
    RULES,
    UNDECIDED,
    claims,
    last_mean_rates,
    verdict,
)
from negmeta_utils.statistics import MAML, META_SGD, mean_interval, paper_t_test

# true effects in percentage points, (MAML, Meta-SGD); head: before adaptation minus ordinary
NONE = {"head": (-2, -2), "skill": (0, 0), "on": (0, 0), "off": (0, 0)}
AS_THE_PAPER = {"head": (2, 2), "skill": (0, 5), "on": (-4, -4), "off": (-4, 4)}
REVERSED = {"head": (-6, -6), "skill": (5, 0), "on": (4, 4), "off": (4, -4)}
HALF = {"head": (9, -2), "skill": (0, 0), "on": (-9, 0), "off": (-9, 0)}


def synthetic(rng, effects, n_seeds=4, n_episodes=30, between_seeds=0.6):
    """Features whose effects are known; seeds crossed with episodes, episodes shared by methods.

    Every quantity varies between seeds (of each method), between episodes (in part alike for both
    methods) and by a residual, in percentage points.
    """
    shape = (2, n_seeds, n_episodes)

    def vary(truth, scale):
        values = np.asarray(truth, dtype=float)[:, None, None] + np.zeros(shape)
        values += between_seeds * rng.standard_normal((2, n_seeds, 1))
        values += scale * rng.standard_normal((1, 1, n_episodes))
        values += 0.5 * scale * rng.standard_normal((2, 1, n_episodes))
        return values + scale * rng.standard_normal(shape)

    same, other = 60 + vary(effects["skill"], 2), 60 + vary((0, 0), 2)
    method, seed, episode = np.indices(shape)
    columns = {
        "method": np.where(method == 0, MAML, META_SGD),
        "seed": seed,
        "episode": episode,
        "same_before": same / 100,
        "same_after": (same + vary(effects["on"], 1.5)) / 100,
        "other_before": other / 100,
        "other_after": (other + vary(effects["off"], 1.5)) / 100,
        "ordinary": (same - vary(effects["head"], 1.5)) / 100,
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def rates_table(means, updates=(0, 10)):
    """means: [seeds, 5 layers] at the last update; zero before, and rows of another group."""
    rows = [
        (seed, update, layer, group, mean * (update == updates[-1]) * (group != "batchnorm"))
        for seed, layers in enumerate(means)
        for update in updates
        for layer, mean in zip(RATE_SIGNS, layers, strict=True)
        for group in ("weights+bias", "batchnorm")
    ]
    return pd.DataFrame(rows, columns=["seed", "update", "layer", "group", "mean"])


def verdicts(column, effects, n=100, **settings):
    """How often each claim on features got each verdict: [claims, verdicts], counts of n."""
    rng = np.random.default_rng(0)
    tables = [claims(synthetic(rng, effects, **settings), None) for _ in range(n)]
    counts = pd.concat(tables).groupby("claim")[column].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=[REPRODUCED, CONTRADICTED, UNDECIDED], fill_value=0).loc["b":]


def allowed(n):
    """Wrong verdicts in n tables that a true rate of 5 % exceeds once in a thousand."""
    return stats.binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize(("column", "between_seeds"), [("methods", 0.6), ("networks", 0)])
def test_no_effect_is_undecided(column, between_seeds):
    counts = verdicts(column, NONE, between_seeds=between_seeds)
    assert (counts[REPRODUCED] + counts[CONTRADICTED] <= allowed(100)).all()


def test_a_true_claim_is_reproduced():
    counts = verdicts("methods", AS_THE_PAPER, n=50)
    assert (counts[CONTRADICTED] == 0).all()
    assert (counts[REPRODUCED] > 40).all()


def test_a_reversed_claim_is_contradicted():
    counts = verdicts("methods", REVERSED, n=50)
    assert (counts[REPRODUCED] == 0).all()
    assert (counts[CONTRADICTED] > 40).all()


def test_half_a_claim_is_not_the_claim():
    counts = verdicts("methods", HALF).loc[["b", "d", "e"]]
    assert (counts[REPRODUCED] + counts[CONTRADICTED] <= allowed(100)).all()


def test_verdicts_on_networks_say_too_much_of_methods():
    counts = verdicts("networks", NONE, n=60, between_seeds=2)
    assert (counts[UNDECIDED] < 45).all()


@pytest.mark.parametrize("n_parts", [1, 2, 5])
def test_verdict_is_rarely_wrong_about_a_conjunction_of_nothings(n_parts):
    rng, n = np.random.default_rng(1), 400
    wrong = 0
    for values in rng.standard_normal((n, n_parts, 3)):
        parts = [lambda level, v=v: mean_interval(v, level) for v in values]
        wrong += verdict(parts, [(1, 0.0)] * n_parts) != UNDECIDED
    assert wrong <= allowed(n)


def test_verdict_on_each_side_of_a_bound():
    def known(values):
        return lambda level: mean_interval(values, level)

    above, below, across = known([3, 4, 5]), known([-5, -4, -3]), known([-9, 1, 9])
    assert verdict([above, below], [(1, 0), (-1, 0)]) == REPRODUCED
    assert verdict([above, below], [(1, 0), (1, 0)]) == CONTRADICTED
    assert verdict([above, across], [(1, 0), (1, 0)]) == UNDECIDED
    assert verdict([above], [(1, 3.5)]) == UNDECIDED
    assert verdict([known([4])], [(1, 0)]) == UNDECIDED


def test_rates_of_known_sign():
    signs = np.array(list(RATE_SIGNS.values()))
    spread = 1 + 0.1 * np.random.default_rng(2).standard_normal((4, 5))
    for means, expected in ((0.01 * signs * spread, REPRODUCED), (0.01 * spread, CONTRADICTED)):
        row = claims(None, rates_table(means)).iloc[0]
        assert (row.networks, row.methods) == (expected, expected)
    means = 0.01 * signs * spread
    means[1, 2] = 0.05
    row = claims(None, rates_table(means)).iloc[0]
    assert (row.networks, row.methods) == (UNDECIDED, UNDECIDED)
    assert "all signs in 3 of 4 networks" in row.measured
    assert claims(None, rates_table(means[:1])).iloc[0].networks == REPRODUCED


def test_rates_without_effect_are_undecided_of_methods():
    rng, n = np.random.default_rng(3), 200
    wrong = sum(
        claims(None, rates_table(means)).methods.iloc[0] != UNDECIDED
        for means in rng.standard_normal((n, 3, 5))
    )
    assert wrong <= allowed(n)


def test_last_mean_rates_are_the_weights_at_the_last_update():
    means = np.arange(10).reshape(2, 5) / 100
    table = rates_table(means).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(last_mean_rates(table), means)
    assert list(last_mean_rates(table)) == list(RATE_SIGNS)


def test_fewer_than_three_seeds_say_nothing_of_methods():
    features = synthetic(np.random.default_rng(4), AS_THE_PAPER, n_seeds=2, between_seeds=0)
    rates = rates_table(np.array([list(RATE_SIGNS.values())] * 2))
    table = claims(features, rates)
    assert (table.methods == UNDECIDED).all()
    assert (table.networks == REPRODUCED).all()
    assert "over 30 episodes" in table.measured.iloc[1]


def test_a_handful_of_episodes_says_nothing():
    features = synthetic(np.random.default_rng(5), AS_THE_PAPER, n_episodes=29)
    table = claims(features, None)
    assert (table.networks == UNDECIDED).all() and (table.methods == UNDECIDED).all()


def test_columns_and_texts():
    features = synthetic(np.random.default_rng(6), AS_THE_PAPER)
    table = claims(features, None)
    columns = ["claim", "statement", "paper", "measured", "networks", "methods"]
    assert list(table) == columns and list(table.claim) == list("abcdef")
    off = features.other_after - features.other_before
    difference = off[features.method == META_SGD].mean() - off[features.method == MAML].mean()
    measured = table.measured.iloc[5]
    assert measured.startswith(f"meta-sgd - maml {100 * difference:+.2f} [")
    assert "points over 4 seeds" in measured
    assert measured.endswith(f"the paper's test p = {paper_t_test(features).p_value:.2g}")
    for claim, statement in table[["claim", "statement"]].to_numpy():
        assert f"| {claim} | {statement} |" in RULES


def test_order_of_rows_does_not_matter():
    features = synthetic(np.random.default_rng(7), NONE)
    shuffled = features.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(claims(features, None), claims(shuffled, None))


def test_what_is_missing_is_not_measured():
    features = synthetic(np.random.default_rng(8), AS_THE_PAPER)
    rates = rates_table(np.array([list(RATE_SIGNS.values())]))
    for absent in (None, features[:0], features[features.method == META_SGD]):
        table = claims(absent, rates).set_index("claim")
        assert (table.measured[list(PARTS)] == NOT_MEASURED).all()
        assert (table.loc[list(PARTS), ["networks", "methods"]] == UNDECIDED).all(axis=None)
        assert table.networks["a"] == REPRODUCED
    for absent in (None, rates[:0]):
        row = claims(features, absent).iloc[0]
        assert tuple(row[3:]) == (NOT_MEASURED, UNDECIDED, UNDECIDED)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.drop(columns="layer"), "missing column.s. layer"),
        (lambda r: r[r.layer != "conv3"], "lacks weights.bias rows"),
        (lambda r: pd.concat([r, r]), "repeated rows"),
    ],
)
def test_unusable_rates_are_refused_in_one_line(spoil, message):
    with pytest.raises(ValueError, match=message) as error:
        claims(None, spoil(rates_table(np.ones((2, 5)))))
    assert "\n" not in str(error.value)
