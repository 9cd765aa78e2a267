"""Interventions on the rates: what each changes and what it leaves."""

import dataclasses

import pandas as pd
import pytest
import torch

from negmeta_utils.adaptation import CONV4_LOSS, init_alpha
from negmeta_utils.episodes import draw_episodes, draw_pairs
from negmeta_utils.evaluation import by_rates, evaluate_adaptations, with_rates
from negmeta_utils.evidence.contrasts import change_grids, equivalence
from negmeta_utils.model import init_params, layer_and_group
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.questions.interventions import (
    AS_LEARNED,
    AS_LONG,
    ONE_CLASS,
    WITHOUT_NEGATIVE,
    adaptations,
    as_long,
    evaluate_interventions,
    evaluate_parts,
    interventions,
    one_class,
    parts,
)
from negmeta_utils.rates import rates_by_row
from negmeta_utils.storage.paths import ROOT


@pytest.fixture(scope="module")
def alpha():
    params = init_params(0, 1, 16, n_way=3, n_filters=4)
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(value.shape, generator=generator)
        for name, value in init_alpha("meta-sgd", params).items()
    }


def test_every_intervention_keeps_names_and_shapes(alpha):
    for changed in [*interventions(alpha).values(), *parts(alpha).values()]:
        assert {name: value.shape for name, value in changed.items()} == {
            name: value.shape for name, value in alpha.items()
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (AS_LEARNED, lambda a: a),
        ("absolute value", lambda a: torch.where(a < 0, -a, a)),
        ("negative set to zero", lambda a: torch.where(a < 0, torch.zeros(()), a)),
        ("positive set to zero", lambda a: torch.where(a > 0, torch.zeros(()), a)),
        ("signs flipped", lambda a: 0 - a),
    ],
)
def test_elementwise_interventions(alpha, name, expected):
    for key, value in interventions(alpha)[name].items():
        assert torch.equal(value, expected(alpha[key]))


def test_shuffled_signs_keep_magnitudes_and_counts_and_move_with_the_seed(alpha):
    shuffled = interventions(alpha, seed=1)["signs shuffled"]
    for row, values in rates_by_row(shuffled).items():
        original = rates_by_row(alpha)[row]
        assert torch.equal(values.abs(), original.abs())
        assert (values < 0).sum() == (original < 0).sum()
    weights = [interventions(alpha, seed)["signs shuffled"]["conv2.weight"] for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], alpha["conv2.weight"])


def test_averaged_magnitudes_keep_signs_and_the_layers_mean(alpha):
    averaged = interventions(alpha)["magnitudes averaged"]
    for row, values in rates_by_row(averaged).items():
        original = rates_by_row(alpha)[row]
        assert torch.equal(values.sign(), original.sign())
        torch.testing.assert_close(values.abs(), original.abs().mean().expand(len(values)))


@pytest.mark.parametrize(
    ("table", "name", "kept"),
    [
        (interventions, "convolutions only", {(f"conv{b}", "weights+bias") for b in range(1, 5)}),
        (interventions, "batch norm only", {(f"conv{b}", "batchnorm") for b in range(1, 5)}),
        (interventions, "linear layer only", {("logits", "weights+bias")}),
        (parts, "head only", {("logits", "weights+bias")}),
        (parts, "conv3 only", {("conv3", "weights+bias"), ("conv3", "batchnorm")}),
        (
            parts,
            "body only",
            {(f"conv{b}", g) for b in range(1, 5) for g in ("weights+bias", "batchnorm")},
        ),
    ],
)
def test_a_part_alone_keeps_its_rates_and_no_other(alpha, table, name, kept):
    for key, value in table(alpha)[name].items():
        expected = alpha[key] if layer_and_group(key) in kept else torch.zeros_like(value)
        assert torch.equal(value, expected), key


def test_parts_take_a_single_number_a_parameter():
    params = init_params(0, 1, 16, n_way=3, n_filters=4)
    alpha = parts(init_alpha("maml", params, 0.01))["conv1 only"]
    assert float(alpha["conv1.weight"]) == pytest.approx(0.01)
    assert float(alpha["conv2.weight"]) == 0


def lengths(params, adapted, task):
    """Of the step from parameters to those of one task, by row of table 1, in float64."""
    squares = {}
    for name, value in adapted.items():
        row = layer_and_group(name)
        step = value[task].double() - params[name].double()
        squares[row] = squares.get(row, 0) + float(step.square().sum())
    return {row: square**0.5 for row, square in squares.items()}


@pytest.fixture
def one_step(run):
    """A run of one inner step with rates of both signs, its tasks and their numbers."""
    mixed = {name: value.clone() for name, value in run.alpha.items()}
    generator = torch.Generator().manual_seed(5)
    for value in mixed.values():
        value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    parameters = run.parameters | {"inner_steps": 1}
    return dataclasses.replace(run, alpha=mixed, manifest=run.manifest | {"parameters": parameters})


def test_steps_are_as_long_in_every_layer_as_those_as_learned(one_step, images):
    task, _ = draw_pairs(images, one_step.parameters, 0, range(3))
    own = with_rates(CONV4, one_step.alpha, one_step.parameters["inner_steps"])(
        one_step.params, task, range(3)
    )
    changed = interventions(one_step.alpha)
    shorter = with_rates(CONV4, changed[WITHOUT_NEGATIVE], one_step.parameters["inner_steps"])(
        one_step.params, task, range(3)
    )
    kept = as_long(one_step, changed[WITHOUT_NEGATIVE])(one_step.params, task, range(3))
    for i in range(3):
        wanted = lengths(one_step.params, own, i)
        assert lengths(one_step.params, kept, i) == pytest.approx(wanted, rel=1e-3)
        short = lengths(one_step.params, shorter, i)
        assert all(short[row] < 0.95 * wanted[row] for row in wanted)
        for name, value in kept.items():  # the direction is that of the shorter step
            row = layer_and_group(name)
            longer = (shorter[name][i] - one_step.params[name]) * wanted[row] / short[row]
            torch.testing.assert_close(
                value[i], one_step.params[name] + longer, rtol=1e-3, atol=1e-5
            )


@pytest.mark.parametrize("name", ["absolute value", "signs shuffled", "signs flipped"])
def test_changed_signs_leave_steps_as_long_as_they_were(one_step, images, name):
    task, _ = draw_pairs(images, one_step.parameters, 0, range(1))
    own, changed = (
        with_rates(CONV4, alpha, one_step.parameters["inner_steps"])(
            one_step.params, task, range(1)
        )
        for alpha in (one_step.alpha, interventions(one_step.alpha)[name])
    )
    wanted = lengths(one_step.params, own, 0)
    assert lengths(one_step.params, changed, 0) == pytest.approx(wanted, rel=1e-3)


def test_rates_as_learned_kept_as_long_are_the_rates_as_learned(run, images):
    """Over all inner steps; and rates that move nothing still move nothing."""
    task, _ = draw_pairs(images, run.parameters, 0, range(2))
    own = with_rates(CONV4, run.alpha, run.parameters["inner_steps"])(run.params, task, range(2))
    kept = as_long(run, run.alpha)(run.params, task, range(2))
    for name, value in own.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-3, atol=1e-5)
    still = as_long(run, only_the_head(run.alpha))(run.params, task, range(2))
    for name, value in still.items():
        moved = not torch.equal(value, run.params[name].expand_as(value))
        assert moved == name.startswith("logits"), name


def only_the_head(alpha):
    return interventions(alpha)["linear layer only"]


def test_one_class_adapts_to_images_of_one_class_with_one_label(one_step, images):
    """Against plain automatic differentiation on the images drawn."""
    settings = one_step.parameters
    task, _ = draw_pairs(images, settings, 3, range(2))
    adapted = one_class(one_step, images, 3)(one_step.params, task, range(2))
    n_support = settings["n_way"] * settings["n_shot"]
    for i in range(2):
        index = 2**50 + i
        alone = draw_episodes(images, 3, "other", range(index, index + 1), 1, n_support, 1)
        assert alone.support.shape[1] == n_support and not alone.support_labels.any()
        gradient, _ = torch.func.grad(CONV4_LOSS, has_aux=True)(
            one_step.params, alone.support[0], alone.support_labels
        )
        for name, value in adapted.items():
            expected = one_step.params[name] - one_step.alpha[name] * gradient[name]
            torch.testing.assert_close(value[i], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_every_way_to_adapt_is_measured_on_the_same_pairs(run, images):
    table = evaluate_adaptations(run, images, adaptations(run, images, 2), 4, eval_seed=2)
    names = [*interventions(run.alpha), WITHOUT_NEGATIVE + AS_LONG]
    names += ["positive set to zero" + AS_LONG, ONE_CLASS]
    assert list(table["variant"].unique()) == names
    alone = by_rates(run, interventions(run.alpha))
    expected = evaluate_adaptations(run, images, alone, 4, eval_seed=2)
    same = table[table["variant"].isin(alone)]
    assert same.reset_index(drop=True).equals(expected)


@pytest.mark.slow
@pytest.mark.parametrize("evaluate", [evaluate_interventions, evaluate_parts])
def test_disjoint_pairs_share_no_class(evaluate, run, images, tmp_path):
    assert (evaluate([run], images, 6, tmp_path)["shared_classes"] > 0).any()
    table = evaluate([run], images, 6, tmp_path, disjoint=True)
    assert (table["shared_classes"] == 0).all() and table["variant"].nunique() > 3


def test_a_class_with_too_few_images_is_refused(run, images):
    many = dataclasses.replace(
        run, manifest=run.manifest | {"parameters": run.parameters | {"n_shot": 500}}
    )
    with pytest.raises(ValueError, match="lower n_shot or n_query"):
        one_class(many, images, 0)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("paper-28", "60,000 meta-updates, {:,} pairs of tasks"),
        ("paper-84", "the first {:,} pairs"),
    ],
)
def test_the_answer_in_the_documentation_is_that_of_the_shipped_table(study, said):
    folder = ROOT / "figures" / study / "mechanism"
    table = pd.read_parquet(folder / "interventions.parquet")
    grids = change_grids(table, "variant", "off-task change")
    shipped = pd.read_csv(folder / "equivalence.csv").set_index(["quantity", "rates"])
    page = (ROOT / "docs" / "results.md").read_text().replace("−", "-")
    for name in (WITHOUT_NEGATIVE, "signs shuffled"):
        row = equivalence(grids, name, AS_LEARNED).iloc[0]
        assert row.points == pytest.approx(shipped.points["off-task change", name], abs=1e-4)
        assert f"{row.points:+.2f} [{row.low:+.2f}, {row.high:+.2f}]" in page
    assert said.format(table.episode.nunique()) in page
