"""Ways of using a model against the features table and one task at a time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.evaluation import by_rates, evaluate_adaptations, evaluate_features
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.prototypes import prototype_accuracy
from negmeta_utils.questions.interventions import AS_LEARNED, interventions
from negmeta_utils.questions.uses import (
    changes_over_steps,
    evaluate_steps,
    evaluate_uses,
    rates_over_steps,
)

N = 6


@pytest.fixture(scope="module")
def features(run, images):
    return evaluate_features(run, images, N, eval_seed=2)


@pytest.mark.slow
def test_variants_hold_the_rates_as_learned_and_the_same_features_before(run, images, features):
    changed = by_rates(run, interventions(run.alpha))
    table = evaluate_adaptations(run, images, changed, N, eval_seed=2)
    own = table[table["variant"] == AS_LEARNED].drop(columns="variant").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, features)
    assert table["variant"].nunique() == 10
    before = table.groupby("episode")[["same_before", "other_before"]].nunique()
    assert (before == 1).all(axis=None), "adaptation cannot change what is before it"
    after = table.pivot(index="episode", columns="variant", values="ordinary")
    assert not np.allclose(after["signs flipped"], after[AS_LEARNED])


def test_steps_of_training_give_the_features_table_and_none_change_nothing(run, images, features):
    trained = run.parameters["inner_steps"]
    table = evaluate_steps([run], images, [0, trained, trained + 2], N, eval_seed=2)
    at = table[table["steps"] == trained].reset_index(drop=True)
    columns = ["same_before", "same_after", "other_before", "other_after", "ordinary"]
    pd.testing.assert_frame_equal(at[columns], features[columns])
    none = table[table["steps"] == 0]
    assert (none["same_before"] == none["same_after"]).all()
    assert (none["other_before"] == none["other_after"]).all()
    assert sorted(table["steps"].unique()) == [0, trained, trained + 2]
    assert (table["inner_steps"] == trained).all()


def test_uses_agree_with_the_features_table(run, images, features):
    table = evaluate_uses([run], images, [1, 3], N, eval_seed=2)
    wide = table.pivot(index="episode", columns="use", values="accuracy")
    assert list(wide.columns) == [
        "1 other task", "3 other tasks", "no adaptation", "the task itself",
        "the task itself, own head",
    ]  # fmt: skip
    assert wide["no adaptation"].tolist() == features["same_before"].tolist()
    assert wide["the task itself"].tolist() == features["same_after"].tolist()
    assert wide["the task itself, own head"].tolist() == features["ordinary"].tolist()


def test_other_tasks_are_adapted_to_one_after_another(run, images):
    table = evaluate_uses([run], images, [2], 2, eval_seed=2)
    shape = (run.parameters["n_way"], run.parameters["n_shot"], run.parameters["n_query"])
    steps = run.parameters["inner_steps"]
    for episode in (0, 1):
        params = run.params
        for number in (1, 2):
            index = 2**40 * number + episode
            other = draw_episodes(images, 2, "other", range(index, index + 1), *shape)
            params = adjoint.adapt(params, run.alpha, other.support, other.support_labels, steps)
        task = draw_episodes(images, 2, "test", range(episode, episode + 1), *shape)
        expected = prototype_accuracy(
            *(adjoint.embed([params], x)[0] for x in (task.support, task.query)), shape[0],
            task.query_labels,
        )  # fmt: skip
        rows = table[(table["episode"] == episode) & (table["use"] == "2 other tasks")]
        torch.testing.assert_close(torch.tensor(rows["accuracy"].to_numpy()), expected)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([-1, 0], "steps=-1: must be at least 0"),
        ([], r"steps=\[\]: must be a list of whole numbers, such as \[0, 1, 5\]"),
        (3, "steps=3: must be a list of whole numbers"),
        ([1.5], "steps=1.5: must be a whole number"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(run, images, steps, said):
    with pytest.raises(ValueError, match=said):
        evaluate_steps([run], images, steps, 4)


@pytest.mark.parametrize(
    ("n_others", "said"),
    [
        ([], r"n_others=\[\]: must be a list of whole numbers, such as \[1, 2, 5\]"),
        ([0, 1], "n_others=0: must be at least 1"),
    ],
)
def test_numbers_of_other_tasks_that_cannot_be_are_refused(run, images, n_others, said):
    with pytest.raises(ValueError, match=said):
        evaluate_uses([run], images, n_others, 4)


def test_changes_over_steps_are_contrasts_of_each_number_of_steps(run, images):
    table = pd.concat([evaluate_steps([run], images, [0, 1, 2], 6, eval_seed=s) for s in range(2)])
    table["seed"] = np.repeat([0, 1], len(table) // 2)
    changes = changes_over_steps(table)
    assert changes["x"].tolist() == [0, 1, 2] * 2
    assert set(changes["line"]) == {"trained with 2 steps"}
    rows = table[table["steps"] == 2]
    expected = 100 * (rows["same_after"] - rows["same_before"]).mean()
    found = changes[(changes["x"] == 2) & (changes["quantity"] == "on-task change")]
    assert found["points"].item() == pytest.approx(expected)


def test_rates_by_inner_steps_are_those_of_meta_sgd(run):
    one = replace(
        run, manifest={**run.manifest, "parameters": {**run.parameters, "inner_steps": 1}}
    )
    maml = replace(run, manifest={"parameters": {**run.parameters, "method": "maml"}})
    table = rates_over_steps([run, maml, one])
    assert list(table["inner_steps"].unique()) == [1, run.parameters["inner_steps"]]
    for _, own in table.groupby("inner_steps"):
        assert own.drop(columns="inner_steps").equals(table_1(run.rates()))
    assert rates_over_steps([maml]).empty
