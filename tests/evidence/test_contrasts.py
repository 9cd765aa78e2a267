"""Conditions against one another, on tables whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from negmeta_utils.evidence.contrasts import (
    accuracy_grids,
    against_base,
    change_grids,
    contrasts,
    equivalence,
    equivalence_sentence,
    sentence,
)
from negmeta_utils.evidence.intervals import over_seeds


def grid(shift, seeds=5, episodes=40, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(99).normal(0, 5, episodes)  # the same episodes for all
    values = shift + common - common.mean() + rng.normal(0, noise, (seeds, episodes))
    return pd.DataFrame(values, index=range(seeds), columns=range(episodes))


def test_networks_of_unknown_seed_are_no_sample_of_trainings():
    conditions = {"base": grid(0.0), "more": grid(3.0, seed=1)}
    known = contrasts({name: of.iloc[1:] for name, of in conditions.items()}, "base")
    unknown = {name: of.rename(index={0: -7}) for name, of in conditions.items()}
    pd.testing.assert_frame_equal(contrasts(unknown, "base"), known)
    assert equivalence(unknown, "more", "base")["n"].tolist() == [40, 4]
    none = {name: of.rename(index=lambda s: -1 - s) for name, of in conditions.items()}
    alone = contrasts(none, "base").set_index("condition")
    assert alone["points"].to_dict() == pytest.approx(
        {name: of.to_numpy().mean() for name, of in conditions.items()}
    )
    assert alone["low"].isna().all() and set(alone["verdict"]) == {"undecided"}


def test_rows_are_the_intervals_of_grids_and_of_paired_differences():
    conditions = {"base": grid(0.0), "more": grid(3.0, seed=1), "less": grid(-3.0, seed=2)}
    table = contrasts(conditions, "base").set_index("condition")
    for name, values in conditions.items():
        assert tuple(table.loc[name, ["points", "low", "high"]]) == pytest.approx(
            tuple(over_seeds(values).interval())
        )
    difference = over_seeds(conditions["more"] - conditions["base"]).interval()
    assert tuple(table.loc["more", ["minus_base", "minus_low", "minus_high"]]) == pytest.approx(
        tuple(difference)
    )
    assert table["verdict_minus"].dropna().to_dict() == {"more": "up", "less": "down"}
    assert table.loc["base", ["minus_base", "minus_low", "verdict_minus"]].isna().all()
    assert table.loc["base", "verdict"] == "undecided", "episodes vary by 5 points"
    assert table.loc["base", "needed"]


def test_one_seed_decides_nothing():
    table = contrasts({"alone": grid(50.0, seeds=1)})
    assert table["verdict"].item() == "undecided"
    assert "one seed" in sentence(table.iloc[0], "alone")


def test_sentences_say_the_verdict():
    table = contrasts({"up": grid(9.0), "none": grid(0.0)})
    assert sentence(table.iloc[0], "it").endswith("points, better")
    assert "undecided" in sentence(table.iloc[1], "it")


def test_differences_from_the_base_make_sentences_of_their_own():
    conditions = {"base": grid(9.0), "same": grid(9.0, seed=1), "more": grid(12.0, seed=2)}
    table = against_base(contrasts(conditions, "base"))
    assert list(table["condition"]) == ["same", "more"]
    same, more = (sentence(row, "it") for _, row in table.iterrows())
    assert same.endswith(" seeds would decide)") or same.endswith("(more episodes needed)")
    assert more.endswith("points, better")


def test_a_thousand_seeds_are_seeds_too():
    (row,) = (row for _, row in contrasts({"it": grid(0.0)}).iterrows())
    row["needed"] = "1,161"
    assert sentence(row, "it").endswith("undecided (1,161 seeds would decide)")


def test_what_cannot_change_is_unchanged():
    table = contrasts({"still": 0 * grid(0.0)})
    assert table["verdict"].item() == "unchanged"
    assert sentence(table.iloc[0], "it") == "it: +0.00 [+0.00, +0.00] points, nothing changes"
    alone = contrasts({"still": 0 * grid(0.0, seeds=1)})
    assert sentence(alone.iloc[0], "it") == "it: +0.00 points, nothing changes"


def test_one_episode_decides_nothing_either():
    several = {name: grid(value).iloc[:, :1] for name, value in (("base", 0.0), ("it", 9.0))}
    assert "one episode, undecided" in sentence(contrasts(several).iloc[1], "it")
    for row in equivalence(several, "it", "base").iloc:
        assert equivalence_sentence(row, "it").endswith("points, one episode, undecided")


def test_conditions_on_other_episodes_are_refused():
    other = grid(1.0).rename(columns=lambda episode: episode + 1)
    with pytest.raises(ValueError, match="differ in their episodes"):
        contrasts({"base": grid(0.0), "other": other}, "base")
    with pytest.raises(ValueError, match="share no seed"):
        contrasts({"base": grid(0.0), "other": grid(0.0).rename(index=lambda s: s + 10)}, "base")


def test_grids_of_a_table_by_condition():
    rows = [
        {"method": "maml", "seed": s, "episode": e, "k": k, "same_before": 0.5, "ordinary": 0.5,
         "same_after": 0.5 + 0.01 * k, "other_before": 0.4, "other_after": 0.4 - 0.02 * s,
         "accuracy": 0.1 * e}
        for k in (2, 1) for s in (0, 1) for e in (0, 1, 2)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    on_task = change_grids(table, "k", "on-task change")
    assert list(on_task) == ["2", "1"], "in order of appearance"
    assert np.allclose(on_task["2"], 2)
    off_task = change_grids(table, "k", "off-task change")["1"]
    assert off_task.loc[1].to_numpy() == pytest.approx(-2)
    assert accuracy_grids(table, "k")["1"].loc[0].tolist() == pytest.approx([0, 10, 20])


def test_equivalence_is_two_one_sided_tests_on_paired_differences():
    conditions = {"base": grid(0.0), "same": grid(0.0, seed=1)}
    row = equivalence(conditions, "same", "base").set_index("over").loc["episodes"]
    x, y = (conditions[name].to_numpy().mean(axis=0) for name in ("same", "base"))
    assert row.p_value == pytest.approx(ttost_paired(x, y, -0.1, 0.1)[0])
    interval = stats.ttest_1samp(x - y, 0).confidence_interval(0.9)
    assert (row.low, row.high) == pytest.approx(tuple(interval))


def test_equivalence_verdicts_by_known_truth():
    cases = {0.0: "unchanged", 0.05: "unchanged", 0.5: "up", -0.5: "down"}
    for shift, expected in cases.items():
        conditions = {"base": grid(0.0, noise=0.05), "other": grid(shift, noise=0.05, seed=3)}
        assert (equivalence(conditions, "other", "base").verdict == expected).all(), shift
    noisy = {"base": grid(0.0, noise=5), "other": grid(0.0, noise=5, seed=3)}
    assert (equivalence(noisy, "other", "base").verdict == "undecided").all()


@pytest.mark.slow
def test_a_change_of_the_margin_is_hardly_ever_called_none():
    n, wrong = 300, 0
    for seed in range(n):
        conditions = {
            "base": grid(0.0, noise=0.1, seed=2 * seed),
            "other": grid(0.1, noise=0.1, seed=2 * seed + 1),
        }
        table = equivalence(conditions, "other", "base").set_index("over")
        wrong += table.loc["seeds", "verdict"] == "unchanged"
    assert wrong <= stats.binom.ppf(0.999, n, 0.05)


def test_equivalence_in_words():
    conditions = {"base": grid(0.0, noise=0.05), "same": grid(0.0, noise=0.05, seed=1)}
    episodes, seeds = equivalence(conditions, "same", "base").iloc
    text = equivalence_sentence(episodes, "what")
    assert text.startswith("what, over 40 episodes: ")
    assert "(90 %): no change of 0.1 points or more (p < 0.0001)" in text
    assert "over 5 seeds" in equivalence_sentence(seeds, "what")
    one = {name: values.head(1) for name, values in conditions.items()}
    lone = equivalence(one, "same", "base").set_index("over", drop=False).loc["seeds"]
    assert equivalence_sentence(lone, "what").endswith("points, one seed, undecided")
