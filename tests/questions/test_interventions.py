"""Interventions on the rates: what each changes and what it leaves."""

import pytest
import torch

from negmeta_utils.adaptation import init_alpha
from negmeta_utils.model import init_params, layer_and_group
from negmeta_utils.questions.interventions import AS_LEARNED, interventions, parts
from negmeta_utils.rates import rates_by_row


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
        (parts, "block 3 only", {("conv3", "weights+bias"), ("conv3", "batchnorm")}),
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
    alpha = parts(init_alpha("maml", params, 0.01))["block 1 only"]
    assert float(alpha["conv1.weight"]) == pytest.approx(0.01)
    assert float(alpha["conv2.weight"]) == 0
