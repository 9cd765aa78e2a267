import nbformat
import numpy as np
import pandas as pd
import pytest
from random_tables import NONE, RATE_SIGNS, SIGNS, rates_table, synthetic
from scipy import stats
from statsmodels.stats.multitest import multipletests

from negmeta_utils.evidence import findings as module
from negmeta_utils.evidence.claims import claims, lost_by_holm, p_values, standing
from negmeta_utils.evidence.collapsed import collapsed, rates_without, without
from negmeta_utils.evidence.findings import NOT_MEASURED, Finding
from negmeta_utils.evidence.intervals import estimate, over_episodes, over_seeds
from negmeta_utils.evidence.learned_rates import last_mean_rates
from negmeta_utils.evidence.looks import levels
from negmeta_utils.evidence.quantities import ACCURACIES, MAML, META_SGD
from negmeta_utils.evidence.rules import (
    CLAIMS,
    CONTRADICTED,
    NO_EFFECT,
    PARTS,
    REPRODUCED,
    RULES,
    UNDECIDED,
    Judgement,
    Part,
    judge,
)
from negmeta_utils.evidence.t_tests import OFF_TASK_ALONE, paper_t_test, t_test
from negmeta_utils.evidence.words import p_said
from negmeta_utils.studies.study_file import NOTEBOOKS

AS_THE_PAPER = {
    "head": (0, 0), "skill": (0, 5), "on": (-4, -4), "off": (-4, 4), "rates": 6 * SIGNS
}  # fmt: skip
REVERSED = {
    "head": (-6, -6), "skill": (5, 0), "on": (4, 4), "off": (4, -4), "rates": -6 * SIGNS
}  # fmt: skip
HALF = {
    "head": (0, -2), "skill": (0, 0), "on": (-9, 0), "off": (-9, 0),
    "rates": SIGNS * (9, 9, 9, 9, 0),
}  # fmt: skip
AT_MARGINS = {
    "head": (2, -2), "skill": (0, 0.5), "on": (-0.1, -0.1), "off": (-0.069, 0.047),
    "rates": 0 * SIGNS,
}  # fmt: skip
RESTS_ON = [REPRODUCED, CONTRADICTED, NO_EFFECT]  # in the order of a judgement's p-values
# Truth, definite verdicts that are right, tables. Of nothing, and of half a claim whose other half
# is nothing, no definite verdict is right, but that there is no such effect where the spread allows
# to say so. There the rule errs most, so there are more tables. Of (f), half the truth of (e) is
# all.
TRUTHS = {
    "no effect": (NONE, dict.fromkeys("abcdef"), 60),
    "as the paper": (AS_THE_PAPER, dict.fromkeys("abcdef", REPRODUCED), 20),
    "reversed": (REVERSED, dict.fromkeys("abcdef", CONTRADICTED), 20),
    "half of it": (HALF, dict.fromkeys("abcde") | {"f": REPRODUCED}, 60),
}


def tables(truth, n, seed=0, **settings):
    """n pairs of a features and a rates table in which `truth` holds of the methods."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        features = synthetic(rng, truth, **settings)
        n_seeds = features.seed.nunique()
        yield features, rates_table(truth["rates"] + rng.standard_normal((n_seeds, len(SIGNS))))


def errors(column, truth, right, n, **settings):
    """For each claim, how many of n tables get a wrong definite verdict, and how many the right."""
    found = [claims(*pair).set_index("claim")[column] for pair in tables(truth, n, **settings)]
    found = pd.concat(found, axis=1)
    is_right = found.apply(lambda row: row == right.get(row.name), axis=1)
    wrong = (found != UNDECIDED) & ~is_right
    if truth in (NONE, HALF):
        wrong &= found != NO_EFFECT
    return pd.DataFrame({"wrong": wrong.sum(axis=1), "right": is_right.sum(axis=1)})


def allowed(n):
    """Wrong verdicts in n tables that a true rate of 5 % exceeds once in a thousand. The tables'
    seeds are fixed, so no test fails now and then; the margin is for the draw of those seeds.
    """
    return stats.binom.ppf(0.999, n, 0.05)


@pytest.mark.parametrize("column", ["networks", "methods"])
@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.slow
def test_at_most_5_percent_of_definite_verdicts_are_wrong(name, column):
    truth, right, n = TRUTHS[name]
    spread = 1 if name == "no effect" else 0.5  # (b) has bounds on both sides
    of = errors(column, truth, right, n, centred=column == "networks", spread=spread)
    if column == "networks":  # their rates are known, not estimated: see the next test
        of = of.drop(index="a")
    assert set("bcdef") <= set(of.index)
    assert (of.wrong <= allowed(n)).all(), of
    decidable = pd.Series(right)[of.index].notna()
    assert (of.right[decidable] > 0.8 * n).all(), of


@pytest.mark.slow
def test_no_such_effect_is_found_where_there_is_none_and_hardly_ever_at_the_margin():
    n, column = 20, "methods"
    right = dict.fromkeys("cdef", NO_EFFECT)
    of = errors(column, NONE, right, n, spread=0.01).loc[list("cdef")]
    assert (of.right > 0.9 * n).all(), of
    # within the margins' reach, but the truth is on them: neither reproduced nor without effect
    n = 40
    right = dict.fromkeys("cdef", REPRODUCED)
    of = errors(column, AT_MARGINS, right, n, spread=0.1).loc[list("bcdef")]
    assert (of.wrong <= allowed(n)).all(), of


@pytest.mark.slow
def test_the_verdict_on_the_networks_rates_is_never_wrong():
    seen = set()
    for seed, spread in enumerate((0, 0, 1, 2, 3, 9, -9) * 4):
        _, rates = next(tables({**NONE, "rates": spread * SIGNS / 2}, 1, seed, n_seeds=2))
        last = rates[(rates["update"] == 10) & (rates.group == "weights+bias")]
        holds = [
            all(row["mean"] * RATE_SIGNS[row.layer] > 0 for _, row in of.iterrows())
            for _, of in last.groupby("seed")
        ]
        expected = REPRODUCED if all(holds) else UNDECIDED if any(holds) else CONTRADICTED
        assert claims(None, rates).networks[0] == expected
        seen.add(expected)
    assert seen == {REPRODUCED, CONTRADICTED, UNDECIDED}


@pytest.mark.slow
def test_the_error_rate_shows_that_episodes_say_nothing_of_methods(monkeypatch):
    monkeypatch.setattr(module, "over_seeds", lambda grid, skewed: over_episodes(grid))
    n = 40
    of = errors("methods", NONE, {}, n, between_seeds=2).drop(index="a")
    assert (of.wrong > allowed(n)).all(), of


@pytest.mark.slow
def test_the_error_rate_shows_a_rule_without_correction_for_parts(monkeypatch):
    def careless(estimates, parts, level=0.05):
        judged = [judge([one], [part]).verdict for one, part in zip(estimates, parts, strict=True)]
        return Judgement(next((v for v in judged if v != UNDECIDED), UNDECIDED))

    monkeypatch.setattr(module, "judge", careless)
    n = 200
    found = [
        claims(None, rates_table(of)).methods[0]
        for of in np.random.default_rng(0).standard_normal((n, 5, 5))
    ]
    assert sum(verdict != UNDECIDED for verdict in found) > allowed(n)
    n = 40
    of = errors("methods", HALF, {}, n).loc[["a", "b", "d", "e"]]
    assert (of.wrong > allowed(n)).all(), of


@pytest.mark.slow
def test_holm_holds_the_family_at_5_percent():
    n = 60
    found = [p_values(*pair) for pair in tables(NONE, n, between_seeds=0)]
    for column in ("networks", "methods"):
        assert sum((t[f"Holm {column}"] <= 0.05).any() for t in found) <= allowed(n)
    # one by one the same verdicts are wrong too often: the correction is needed
    assert sum((t["p networks"] <= 0.05).any() for t in found) > 1.5 * 0.05 * n


def by_p_values(found, level=0.05):
    """The rule as `RULES` states it, from p-values."""
    if 2 * found.p_false <= level:
        return REPRODUCED
    if 2 * found.p_true <= level:
        return CONTRADICTED
    return NO_EFFECT if found.p_effect <= level else UNDECIDED


def over_skewed_seeds(grid):
    return over_seeds(grid, skewed=True)


@pytest.mark.slow
@pytest.mark.parametrize("over", [over_episodes, over_seeds, over_skewed_seeds])
@pytest.mark.parametrize("n_parts", [1, 2, 5])
def test_verdicts_by_p_value_are_those_by_interval(over, n_parts):
    rng, seen = np.random.default_rng(1), set()
    for shift in np.linspace(-1.5, 1.5, 80):
        values = rng.standard_normal((n_parts, 6, 8)) + shift
        estimates = [over(pd.DataFrame(grid)) for grid in values]
        for margin in (0.9, 0.01):
            parts = [Part("", "", 1, 0.1, margin)] * n_parts
            found = judge(estimates, parts)
            assert found.verdict == by_p_values(found)
            assert (found.p <= 0.05) == (found.verdict != UNDECIDED)
            seen.add(found.verdict)
    assert seen == {REPRODUCED, CONTRADICTED, UNDECIDED, NO_EFFECT}


def test_verdict_on_each_side_of_a_bound():
    above, below, across = (estimate(v) for v in ([3, 4, 5], [-5, -4, -3], [-9, 1, 9]))
    up, down = Part("", "", 1), Part("", "", -1)
    assert judge([above, below], [up, down]).verdict == REPRODUCED
    assert judge([above, below], [up, up]).verdict == CONTRADICTED
    assert judge([above, across], [up, up]).verdict == UNDECIDED
    assert judge([above], [Part("", "", 1, 3.5)]).verdict == UNDECIDED
    assert judge([estimate([4])], [up]).verdict == UNDECIDED
    nearly = estimate([-0.1, 0, 0.2])
    assert judge([nearly], [Part("", "", 1, margin=1)]).verdict == NO_EFFECT
    assert judge([nearly], [Part("", "", 1, margin=0.2)]).verdict == UNDECIDED
    assert judge([nearly, across], [Part("", "", 1, margin=1)] * 2).verdict == NO_EFFECT


def test_a_lower_level_asks_for_more():
    one = estimate([3, 4, 5])
    assert judge([one], [Part("", "", 1)], level=0.05).verdict == REPRODUCED
    assert judge([one], [Part("", "", 1)], level=0.01).verdict == UNDECIDED


def test_p_values_by_hand():
    """Claim (d) of these networks is two t-tests; the conjunction takes the larger p-value."""
    features = synthetic(np.random.default_rng(9), {**NONE, "on": (-1, -1)}, n_seeds=1)
    change = 100 * (features.same_after - features.same_before)
    one_sided = [
        stats.ttest_1samp(change[features.method == method], 0, alternative="less").pvalue
        for method in (MAML, META_SGD)
    ]
    row = p_values(features, None).set_index("claim").loc["d"]
    assert row["p networks"] == pytest.approx(2 * max(one_sided))
    features["same_after"], features["same_before"] = features.same_before, features.same_after
    row = p_values(features, None).set_index("claim").loc["d"]
    assert row["p networks"] == pytest.approx(2 * 2 * min(one_sided))


@pytest.mark.slow
def test_holm_is_over_every_way_of_being_wrong():
    features, rates = next(tables({**NONE, "skill": (0, 2), "on": (-2, -2)}, 1))
    table = p_values(features, rates)
    found = module.findings(features, rates).values()
    for column, skipped in (("networks", 1), ("methods", 0)):
        judged = [getattr(finding, column) for finding in found][skipped:]
        raw = [p for one in judged for p in (one.p_false, one.p_true, one.p_effect)]
        exists = ~np.isnan(raw)  # (a) and (b) have no margin
        oracle = np.full(len(raw), np.nan)
        oracle[exists] = multipletests(np.array(raw)[exists], method="holm")[1]
        oracle = [
            corrected[RESTS_ON.index(one.verdict)] if one.verdict in RESTS_ON else min(corrected)
            for one, corrected in zip(
                judged, np.nan_to_num(oracle, nan=9).reshape(-1, 3), strict=True
            )
        ]
        np.testing.assert_allclose(table[f"Holm {column}"][skipped:], oracle)
        assert (table[f"Holm {column}"][skipped:] >= table[f"p {column}"][skipped:] - 1e-12).all()
    assert np.isnan(table["p networks"][0]) and np.isnan(table["Holm networks"][0])


@pytest.mark.slow
def test_p_values_stand_beside_the_verdicts_of_claims():
    for features, rates in tables(HALF, 3):
        table, verdicts = p_values(features, rates), claims(features, rates)
        columns = ["claim", "networks", "methods"]
        pd.testing.assert_frame_equal(table[columns], verdicts[columns])
    untested = p_values(None, None)
    assert untested.filter(regex="^(p|Holm) ").isna().all(axis=None)


def test_a_verdict_stands_by_its_own_p_value():
    """Above zero, just, and certainly within the margin: *reproduced*, but not by Holm."""
    found = dict.fromkeys(CLAIMS, Finding())
    found["f"] = Finding(methods=Judgement(REPRODUCED, 0.02, 0.98, 1e-9))
    assert found["f"].methods.p == 0.04 and lost_by_holm(found, "methods") == ["f"]
    found["f"] = Finding(methods=Judgement(NO_EFFECT, 0.03, 0.97, 1e-9))
    assert found["f"].methods.p == 1e-9 and lost_by_holm(found, "methods") == []


def test_what_is_not_tested_counts_in_the_family():
    features, rates = next(tables({**NONE, "skill": (0, 9)}, 1))
    alone = p_values(features, None).set_index("claim")
    assert np.isnan(alone.loc["a", "Holm methods"])
    # two p-values a claim, of which p is twice the smaller, and four more of claims with a margin
    assert alone.loc["c", "Holm methods"] == pytest.approx(16 * alone.loc["c", "p methods"] / 2)


def test_notebook_4_shows_its_rules_before_it_reads_the_data():
    cells = [cell.source for cell in nbformat.read(NOTEBOOKS / "04_statistics.ipynb", 4).cells]
    rules = next(i for i, source in enumerate(cells) if "(RULES)" in source)
    data = next(i for i, source in enumerate(cells) if "read_tables(" in source)
    assert rules < data


def test_rates_of_known_sign():
    signs = SIGNS
    spread = 1 + 0.1 * np.random.default_rng(2).standard_normal((5, 5))
    for means, expected in ((0.01 * signs * spread, REPRODUCED), (0.01 * spread, CONTRADICTED)):
        row = claims(None, rates_table(means)).iloc[0]
        assert (row.networks, row.methods) == (expected, expected)
    means = 0.01 * signs * spread
    means[1, 2] = 0.05
    row = claims(None, rates_table(means)).iloc[0]
    assert (row.networks, row.methods) == (UNDECIDED, UNDECIDED)
    assert "all signs in 4 of 5 networks" in row.measured
    assert claims(None, rates_table(means[:1])).iloc[0].networks == REPRODUCED


def test_last_mean_rates_are_the_weights_at_the_last_update():
    means = np.arange(10).reshape(2, 5) / 100
    table = rates_table(means).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(last_mean_rates(table), means)
    assert list(last_mean_rates(table)) == list(RATE_SIGNS)


def test_fewer_than_five_seeds_say_nothing_of_methods():
    features = synthetic(np.random.default_rng(4), AS_THE_PAPER, n_seeds=4, between_seeds=0)
    rates = rates_table(np.array([list(RATE_SIGNS.values())] * 4))
    table = claims(features, rates)
    assert (table.methods == UNDECIDED).all()
    assert (table.networks == REPRODUCED).all()
    assert "over 30 pairs of tasks" in table.measured.iloc[1]


def test_networks_of_unknown_seeds_say_nothing_of_methods():
    """An imported network's unknown seed is a negative number."""
    rng = np.random.default_rng(5)
    features = synthetic(rng, AS_THE_PAPER, n_seeds=8)
    rates = rates_table(0.01 * AS_THE_PAPER["rates"] + 0.001 * rng.standard_normal((8, 5)))
    known = claims(features[features["seed"] < 5], rates[rates["seed"] < 5])
    imported = [table.assign(seed=table["seed"].where(table["seed"] < 5, -table["seed"]))
                for table in (features, rates)]  # fmt: skip
    found = claims(*imported)
    assert list(found["methods"]) == list(known["methods"]) and REPRODUCED in set(known["methods"])
    assert found["measured"][0].endswith("all signs in 8 of 8 networks"), "they are networks"
    assert "over 5 seeds" in found["measured"][2]
    few = [table.assign(seed=table["seed"].where(table["seed"] < 4, -table["seed"]))
           for table in (features, rates)]  # fmt: skip
    assert (claims(*few)["methods"] == UNDECIDED).all()


def test_a_handful_of_episodes_says_nothing():
    features = synthetic(np.random.default_rng(5), AS_THE_PAPER, n_episodes=29)
    table = claims(features, None)
    assert (table.networks == UNDECIDED).all() and (table.methods == UNDECIDED).all()


def test_columns_and_texts():
    features = synthetic(np.random.default_rng(6), AS_THE_PAPER)
    table = claims(features, None)
    columns = ["claim", "statement", "paper", "measured", "networks", "methods", "note"]
    assert list(table) == columns and list(table.claim) == list("abcdef")
    off = features.other_after - features.other_before
    difference = off[features.method == META_SGD].mean() - off[features.method == MAML].mean()
    measured = table.measured.iloc[5]
    assert measured.startswith(f"meta-sgd - maml {100 * difference:+.2f} [")
    assert "points over 5 seeds" in measured
    assert measured.endswith(f"the paper's test {p_said(paper_t_test(features).p_value)}")
    for claim, statement in table[["claim", "statement"]].to_numpy():
        assert f"| {claim} | {statement} |" in RULES


@pytest.mark.slow
def test_what_does_not_survive_holm_says_so():
    seen = set()
    for features, rates in tables({**NONE, "skill": (0, 1.6), "on": (-2, -2)}, 12):
        table, p = claims(features, rates), p_values(features, rates)
        for column in ("networks", "methods"):
            lost = (p[column] != UNDECIDED) & (p[f"Holm {column}"] > 0.05)
            said = table["note"].str.contains(f"{column}: not by Holm")
            assert (said == lost).all()
            seen |= set(lost)
    assert seen == {True, False}


def test_a_test_that_finds_the_opposite_does_not_say_yes():
    for statistic, said in ((8.4, "yes"), (-8.4, "no, the opposite")):
        assert module._finds_it({"p_value": 0.001, "statistic": statistic}) == said
    assert module._finds_it({"p_value": 0.2, "statistic": 1.3}) == "no"


def test_a_look_needs_as_many_seeds_of_each_method():
    features = synthetic(np.random.default_rng(2), AS_THE_PAPER, n_seeds=7)
    fewer = features[(features.method == META_SGD) | (features.seed < 5)]
    found = claims(fewer, None, looks=[5, 12]).set_index("claim")
    for claim in "bcdef":
        assert found.loc[claim, "methods"] == UNDECIDED
        assert "at 5 seeds of one method and 7 of the other" in found.loc[claim, "note"]
        assert " points over 5 and 7 seeds" in found.loc[claim, "measured"]
    assert claims(fewer, None).set_index("claim").loc["f", "methods"] == REPRODUCED


def test_the_papers_own_test_may_say_no_where_the_interval_says_yes():
    features = synthetic(np.random.default_rng(1), AS_THE_PAPER | {"on": (-4, 4), "skill": (0, 0)})
    row = claims(features, None).set_index("claim").loc["f"]
    assert row.networks == REPRODUCED and paper_t_test(features).p_value > 0.05
    p = t_test(features, OFF_TASK_ALONE)["p_value"]
    alone = "yes" if p <= 0.05 else "no"
    assert row.note == (
        "direction and interval yes, the paper's own test no (read as off-task accuracy alone "
        f"{alone}: {p_said(p)})"
    )
    certain = synthetic(np.random.default_rng(1), AS_THE_PAPER, n_episodes=60)
    assert "own test" not in claims(certain, None).set_index("claim").note["f"]


def test_no_effect_names_its_part():
    truth = {**NONE, "off": (0, 3)}
    features = synthetic(np.random.default_rng(2), truth, spread=0.01, centred=True)
    row = claims(features, None).set_index("claim").loc["e"]
    assert (row.networks, row.methods) == (NO_EFFECT, NO_EFFECT)
    assert "methods: no such effect for maml" in row.note and "meta-sgd" not in row.note


def test_seeds_that_are_not_shared_are_measured():
    features = synthetic(np.random.default_rng(3), AS_THE_PAPER)
    features.loc[features.method == MAML, "seed"] += 10
    table = claims(features, None).set_index("claim")
    for claim in "cf":
        assert (table.networks[claim], table.methods[claim]) == (REPRODUCED, REPRODUCED)
        assert "compared by Welch" in table.note[claim]
    assert "Welch" not in table.note["e"]
    shared = synthetic(np.random.default_rng(3), AS_THE_PAPER)
    assert "Welch" not in claims(shared, None).set_index("claim").note["c"]
    means = [measured.split(" [")[0] for measured in table.measured[["c", "f"]]]
    assert means == [
        m.split(" [")[0] for m in claims(shared, None).set_index("claim").measured[["c", "f"]]
    ]


@pytest.mark.slow
def test_unshared_seeds_keep_the_promise_too():
    n, wrong = 40, 0
    for features, _ in tables(NONE, n, between_seeds=2):
        features.loc[features.method == MAML, "seed"] += 10
        verdict = claims(features, None).set_index("claim").methods["f"]
        wrong += verdict in (REPRODUCED, CONTRADICTED)
    assert wrong <= allowed(n)


def test_a_collapsed_training_is_left_out_and_named():
    features, rates = next(tables(AS_THE_PAPER, 1))
    whole = claims(features[features.seed != 2], rates[rates.seed != 2])
    accuracies = ["same_before", "same_after", "other_before", "other_after", "ordinary"]
    fallen = features.copy()
    fallen.loc[fallen.seed == 2, accuracies] = 0.2
    table = claims(fallen, rates)
    assert (table.measured == whole.measured).all()
    assert table.note.str.contains(
        "left out as collapsed: maml 2; left out as collapsed: meta"
    ).all()
    assert not whole.note.str.contains("collapsed").any()


def with_collapsed(features, method, seed):
    """`features` in which one training fell to the rate of guesses."""
    lost = (features.method == method) & (features.seed == seed)
    return features.assign(**{name: features[name].where(~lost, 0.2) for name in ACCURACIES})


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(), (8, 12), (7, 12)])
def test_claims_are_the_same_once_collapsed_trainings_are_taken_out(looks):
    features, rates = next(tables(AS_THE_PAPER, 1, n_seeds=8))
    features = with_collapsed(features, META_SGD, 3)
    lost = collapsed(features)
    kept = without(features, lost), rates_without(rates, lost)
    assert len(kept[0]) == len(features) * 15 / 16 and 3 not in set(kept[1].seed)
    of_lost = claims(features, rates[rates.seed == 3], looks).iloc[0]
    assert (of_lost.measured, of_lost.networks) == (NOT_MEASURED, UNDECIDED)
    for function in (claims, p_values):
        whole = function(features, rates, looks)
        pd.testing.assert_frame_equal(function(*kept, looks, lost), whole)
        pd.testing.assert_frame_equal(function(features, rates, looks, lost), whole)
    assert len(claims(*kept, looks)) == 6, "nothing more collapsed"


def test_a_collapsed_training_counts_as_a_seed_of_its_look():
    features, rates = next(tables(AS_THE_PAPER, 1, n_seeds=8))
    fallen = with_collapsed(features, META_SGD, 3)
    found = module.findings(fallen, rates, looks=[8, 12])
    assert {f.methods.level for f in found.values()} == {levels([8, 12])[8]}
    verdicts = claims(fallen, rates, looks=[8, 12]).set_index("claim")
    assert (verdicts.methods == REPRODUCED).all()
    assert verdicts.note.str.contains("the look at 8 seeds trained, by the 7 that are left").all()
    assert "over 8 and 7 seeds" in verdicts.measured["e"]
    # MAML's eight are all there, but the claim asks for both methods
    unplanned = claims(fallen, rates, looks=[7, 12]).set_index("claim")
    assert (unplanned.methods == UNDECIDED).all()
    assert unplanned.note.str.contains("no look is planned at 8 seeds, but at 7 and 12").all()
    planned = claims(features, rates, looks=[8, 12])
    assert not planned.note.str.contains("left").any()
    # of 5 trained, 4 are left
    few = claims(with_collapsed(features[features.seed < 5], MAML, 3), rates[:40], looks=[5, 8])
    assert (few.set_index("claim").methods[list("bcdef")] == UNDECIDED).all()


@pytest.mark.slow
def test_what_stands_does_so_at_the_level_of_its_look():
    at_look, seen = levels([5, 12])[5], set()
    for features, rates in tables({**NONE, "skill": (0, 4), "on": (-7, -7)}, 8, spread=0.8):
        for looks, level in (((), 0.05), ((5, 12), at_look)):
            found = standing(claims(features, rates, looks))
            p = p_values(features, rates, looks).set_index("claim")
            definite = p[p.methods != UNDECIDED]
            kept = definite[definite["Holm methods"] <= level]
            assert list(found.loc["methods"]) == [" ".join(definite.index), " ".join(kept.index)]
            seen |= {("lost", looks)} if len(kept) < len(definite) else set()
            seen |= {"at 5 % only"} if (kept["Holm methods"] > at_look).any() else set()
    assert seen == {("lost", ()), ("lost", (5, 12)), "at 5 % only"}


def test_collapse_is_far_below_the_siblings():
    features = synthetic(np.random.default_rng(4), NONE, n_seeds=6)
    assert collapsed(features).empty
    for drop, found in ((8, 0), (15, 1)):
        lower = features.copy()
        lower.loc[(lower.seed == 3) & (lower.method == MAML), "ordinary"] -= drop / 100
        table = collapsed(lower)
        assert list(zip(table.method, table.seed, strict=True)) == [(MAML, 3)] * found
    row = table.iloc[0]
    assert row["median"] - row.accuracy == pytest.approx(15, abs=3)
    apart = features.copy()  # trainings that differ much anyway: none is far from its siblings
    apart["ordinary"] -= apart.seed * 0.05
    assert collapsed(apart).empty
    assert collapsed(lower[lower.seed.isin([2, 3])]).empty, "two cannot tell"


def test_planned_looks_have_levels_of_their_own():
    features, rates = next(tables(AS_THE_PAPER | {"skill": (0, 0.9)}, 1, seed=5))
    once = claims(features, rates).set_index("claim")
    twice = claims(features, rates, looks=[5, 12]).set_index("claim")
    assert (once.networks == twice.networks).all()
    p = p_values(features, rates, looks=[5, 12]).set_index("claim")
    level = levels([5, 12])[5]
    assert ((p["p methods"] <= level) == (p.methods != UNDECIDED)).all()
    assert (once.methods != twice.methods).any(), "one is definite at 5 % only"
    unplanned = claims(features, rates, looks=[8, 12])
    assert (unplanned.methods == UNDECIDED).all()
    assert unplanned.note.str.contains("no look is planned at 5 seeds, but at 8 and 12").all()


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
        assert tuple(row[3:]) == (NOT_MEASURED, UNDECIDED, UNDECIDED, "")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.drop(columns="layer"), "missing column.s. layer"),
        (lambda r: r[(r.layer != "conv3") | (r.seed > 0)], "networks differ in their layers"),
        (lambda r: pd.concat([r, r]), "two networks of seed 0"),
    ],
)
def test_unusable_rates_are_refused_in_one_line(spoil, message):
    with pytest.raises(ValueError, match=message) as error:
        claims(None, spoil(rates_table(np.ones((2, 5)))))
    assert "\n" not in str(error.value)
