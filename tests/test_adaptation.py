"""The reference inner loop against finite differences, another library, and identities."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from negmeta_utils.adaptation import (
    BEND,
    METHODS,
    above_zero,
    adapt,
    constrained,
    init_alpha,
    meta_gradient,
    task_loss,
    unconstrained,
)
from negmeta_utils.episodes import Episodes
from negmeta_utils.model import LAYERS, embed, forward, init_params, layer_and_group
from negmeta_utils.networks.conv4 import CONV4

N_WAY, STEPS = 3, 3


def double(tensors):
    return {name: value.double() for name, value in tensors.items()}


@pytest.fixture(scope="module")
def episodes():
    generator = torch.Generator().manual_seed(0)
    return Episodes(
        torch.rand(2, N_WAY, 1, 16, 16, generator=generator, dtype=torch.float64),
        torch.arange(N_WAY),
        torch.rand(2, 2 * N_WAY, 1, 16, 16, generator=generator, dtype=torch.float64),
        torch.arange(N_WAY).repeat_interleave(2),
    )


@pytest.fixture(scope="module")
def params():
    return double(init_params(0, 1, 16, N_WAY, n_filters=4))


@pytest.fixture(scope="module")
def alpha(params):
    """Rates of both signs, one a parameter."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in params.items()
    }


def mean_query_loss(params, alpha, episodes):
    losses = [
        task_loss(params, alpha, support, episodes.support_labels, query, episodes.query_labels,
                  STEPS)[0]
        for support, query in zip(episodes.support, episodes.query, strict=True)
    ]  # fmt: skip
    return torch.stack(losses).mean()


@pytest.mark.parametrize("of", ["params", "alpha"])
def test_meta_gradient_agrees_with_finite_differences(params, alpha, episodes, of):
    gradient = meta_gradient(params, alpha, episodes, STEPS)
    generator = torch.Generator().manual_seed(2)
    moved = params if of == "params" else alpha
    for _ in range(4):
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in moved.items()
        }

        def loss_at(step, direction=direction):
            there = {name: moved[name] + step * direction[name] for name in moved}
            both = (there, alpha) if of == "params" else (params, there)
            return mean_query_loss(*both, episodes)

        step = 1e-6
        slope = (loss_at(step) - loss_at(-step)) / (2 * step)
        product = sum((getattr(gradient, of)[n] * direction[n]).sum() for n in direction)
        assert product.item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)


def test_meta_gradient_agrees_with_higher(params, alpha, episodes):
    """`higher` differentiates through a torch optimiser on a module; we write the module out."""
    higher = pytest.importorskip("higher")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in params.items():
                self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(value.clone()))

        def forward(self, images):
            return forward({name: getattr(self, name.replace(".", "_")) for name in params}, images)

    network = Network()
    rates = {n: torch.tensor(0.05, dtype=torch.float64, requires_grad=True) for n in params}
    optimizer = torch.optim.SGD([{"params": [p]} for p in network.parameters()], lr=0.05)
    override = {"lr": list(rates.values())}
    for support, query in zip(episodes.support, episodes.query, strict=True):
        with higher.innerloop_ctx(
            network, optimizer, copy_initial_weights=False, override=override
        ) as (fast, inner):
            for _ in range(STEPS):
                inner.step(F.cross_entropy(fast(support), episodes.support_labels))
            (F.cross_entropy(fast(query), episodes.query_labels) / 2).backward()
    ours = meta_gradient(params, {n: rate.detach() for n, rate in rates.items()}, episodes, STEPS)
    for (name, value), theirs in zip(ours.params.items(), network.parameters(), strict=True):
        torch.testing.assert_close(value, theirs.grad, rtol=1e-8, atol=1e-10, msg=name)
        torch.testing.assert_close(ours.alpha[name], rates[name].grad, rtol=1e-8, atol=1e-10)


def test_meta_sgd_with_constant_rates_is_maml(params, episodes):
    one, many = (double(init_alpha(method, params, 0.1)) for method in ("maml", "meta-sgd"))
    maml = meta_gradient(params, one, episodes, STEPS)
    meta_sgd = meta_gradient(params, many, episodes, STEPS)
    for name in params:
        torch.testing.assert_close(maml.params[name], meta_sgd.params[name])
        # One rate for all is moved by the sum of what moves them one by one.
        torch.testing.assert_close(maml.alpha[name], meta_sgd.alpha[name].sum())


def test_zero_rates_leave_parameters_and_embeddings_unchanged(params, episodes):
    zero = {name: torch.zeros_like(value) for name, value in params.items()}
    adapted = adapt(params, zero, episodes.support[0], episodes.support_labels, STEPS)
    query = episodes.query[0]
    assert torch.equal(embed(adapted, query), embed(params, query))
    assert torch.equal(forward(adapted, query), forward(params, query))


def test_one_step_is_plain_gradient_descent_with_autograd(params, alpha, episodes):
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss = F.cross_entropy(forward(leaves, episodes.support[0]), episodes.support_labels)
    gradient = torch.autograd.grad(loss, list(leaves.values()))
    adapted = adapt(params, alpha, episodes.support[0], episodes.support_labels, 1)
    for (name, value), slope in zip(params.items(), gradient, strict=True):
        torch.testing.assert_close(adapted[name], value - alpha[name] * slope)


def test_first_order_is_the_query_gradient_at_the_adapted_parameters(params, episodes):
    alpha = double(init_alpha("fomaml", params, 0.1))
    got = meta_gradient(params, alpha, episodes, STEPS, first_order=True)
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for support, query in zip(episodes.support, episodes.query, strict=True):
        adapted = adapt(params, alpha, support, episodes.support_labels, STEPS)
        slope = torch.func.grad(
            lambda p, q=query: F.cross_entropy(forward(p, q), episodes.query_labels)
        )(adapted)
        total = {name: total[name] + slope[name] / 2 for name in total}
    for name in params:
        torch.testing.assert_close(got.params[name], total[name])
    second = meta_gradient(params, alpha, episodes, STEPS)
    assert not torch.allclose(second.params["conv1.weight"], got.params["conv1.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_moves_its_own_layers_alone(params, episodes, method):
    alpha = double(init_alpha(method, params, 0.1))
    adapted = adapt(params, alpha, episodes.support[0], episodes.support_labels, 2)
    moved = {layer_and_group(n)[0] for n in params if (adapted[n] - params[n]).abs().max() > 1e-12}
    assert moved == set(METHODS[method].layers(CONV4))


def test_positive_rates_stay_so_whatever_is_learned(params):
    alpha = init_alpha("meta-sgd-positive", params, 0.01)
    free = unconstrained("meta-sgd-positive", alpha)
    there_and_back = constrained("meta-sgd-positive", free)
    for name, value in alpha.items():
        torch.testing.assert_close(there_and_back[name], value)
    lowered = constrained("meta-sgd-positive", {name: value - 0.5 for name, value in free.items()})
    assert all((value > 0).all() for value in lowered.values())
    assert constrained("meta-sgd", free) is free


@pytest.mark.parametrize("value", [-80.0, -0.3, 0.0, 0.3, 80.0])
def test_positive_rates_have_a_slope_wherever_they_are(value):
    """By the closed form in float64: (1 + v / sqrt(v^2 + b^2)) / 2."""
    free = torch.tensor(value, requires_grad=True)
    (slope,) = torch.autograd.grad(above_zero(free), free)
    exact = (1 + value / math.sqrt(value**2 + BEND**2)) / 2
    assert float(slope) == pytest.approx(exact, rel=1e-3, abs=1e-12)


def test_uniform_rates_are_within_meta_sgds_range_and_seeded(params):
    first, again, other = (
        init_alpha("meta-sgd", params, alpha_init="uniform", seed=s) for s in (0, 0, 1)
    )
    values = torch.cat([value.flatten() for value in first.values()])
    assert values.min() >= 0.005
    assert values.max() <= 0.1
    assert values.mean().item() == pytest.approx(0.0525, abs=0.003)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert set(np.unique([layer_and_group(n)[0] for n in first])) == set(LAYERS)


def test_rates_do_not_start_from_the_numbers_that_parameters_start_from(params):
    alpha = init_alpha("meta-sgd", params, alpha_init="uniform", seed=0)
    drawn = [*params.values(), *alpha.values()]
    orders = [tuple(v.flatten()[:12].argsort().tolist()) for v in drawn if len(v.unique()) >= 12]
    assert len(orders) > 5
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(
    ("method", "alpha_init", "message"),
    [
        ("sgd", "constant", "method='sgd': not one of maml"),
        ("maml", "uniform", "alpha_init='uniform'"),
        ("meta-sgd", "normal", "alpha_init='normal'"),
    ],
)
def test_unknown_settings_are_refused(params, method, alpha_init, message):
    with pytest.raises(ValueError, match=message):
        init_alpha(method, params, alpha_init=alpha_init)
