"""The adjoint against nested automatic differentiation, finite differences and `higher`."""

import pytest
import torch
import torch.nn.functional as F
from random_settings import assert_same, normal, random_setting

from negmeta_utils import adaptation, model
from negmeta_utils.adaptation import METHODS
from negmeta_utils.engine import meta_gradient as adjoint
from negmeta_utils.model import layer_and_group
from negmeta_utils.networks.catalogue import NETWORKS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(dict(image_size=16), id="16"),
        pytest.param(dict(image_size=28, flat=True), id="28-flat"),
        pytest.param(
            dict(image_size=37, channels=3, n_shot=2), id="37-2-shot", marks=pytest.mark.slow
        ),
    ],
)
def test_is_the_reference_gradient(method, setting):
    params, alpha, episodes = random_setting(method, **setting)
    first_order = METHODS[method].first_order
    expected = adaptation.meta_gradient(params, alpha, episodes, 3, first_order)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 3, first_order), expected, 1e-10)


def test_is_the_reference_gradient_at_paper_size():
    params, alpha, episodes = random_setting("meta-sgd", 84, channels=3, n_tasks=1)
    expected = adaptation.meta_gradient(params, alpha, episodes, 2)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2), expected, 1e-10)


def test_parameters_of_another_network_are_refused_in_one_line():
    params, alpha, episodes = random_setting("maml", 16)
    others = NETWORKS["resnet12"].init(0, 1, 16, 5, 8), params | {"norm5.bias": torch.zeros(1)}
    for other in others:
        with pytest.raises(ValueError, match=r"not the parameters of Conv4 .* its loss$"):
            adjoint.meta_gradient(other, alpha, episodes, 1)


def test_scale_of_zero():
    """A channel that batch normalisation switches off: the gradient is the limit from above, where
    the reference's depends on how ties break. So there is no 1/gamma anywhere."""
    params, alpha, episodes = random_setting("meta-sgd", 16)
    small = {name: value.clone() for name, value in params.items()}
    for block in model.BLOCKS:
        params[f"norm{block}.weight"][0] = 0
        small[f"norm{block}.weight"][0] = 1e-9
    expected = adaptation.meta_gradient(small, alpha, episodes, 1)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 1), expected, 1e-6)


def test_dead_channels():
    """A shift that keeps a channel below zero everywhere, and one that keeps it above."""
    params, alpha, episodes = random_setting("maml", 16)
    for block in model.BLOCKS:
        params[f"norm{block}.bias"][:2] = torch.tensor([-50.0, 50.0])
    expected = adaptation.meta_gradient(params, alpha, episodes, 2)
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2), expected, 1e-10)


def test_central_differences():
    params, alpha, episodes = random_setting("meta-sgd", 16)
    gradient = adjoint.meta_gradient(params, alpha, episodes, 2)
    generator = torch.Generator().manual_seed(0)
    along = {name: normal(value, generator) for name, value in params.items()}
    along_alpha = {name: normal(value, generator) for name, value in alpha.items()}

    def loss(step):
        return adjoint.meta_gradient(
            {name: params[name] + step * along[name] for name in params},
            {name: alpha[name] + step * along_alpha[name] for name in alpha},
            episodes,
            2,
        ).loss

    step = 1e-6
    expected = (loss(step) - loss(-step)) / (2 * step)
    slope = sum((gradient.params[name] * along[name]).sum() for name in params)
    slope += sum((gradient.alpha[name] * along_alpha[name]).sum() for name in alpha)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0)


class Conv4(torch.nn.Module):
    """The network as a module, for `higher`."""

    def __init__(self, params):
        super().__init__()
        self.names = list(params)
        self.values = torch.nn.ParameterList(value.clone() for value in params.values())

    def forward(self, images):
        return model.forward(dict(zip(self.names, self.values, strict=True)), images)


@pytest.mark.filterwarnings("ignore")
def test_is_the_gradient_that_higher_gives():
    higher = pytest.importorskip("higher")
    params, alpha, episodes = random_setting("meta-sgd", 28)
    network = Conv4(params)
    rates = [value.clone().requires_grad_() for value in alpha.values()]
    groups = [{"params": [value]} for value in network.values]
    inner = torch.optim.SGD(groups, lr=0.1)
    for support, query in zip(episodes.support, episodes.query, strict=True):
        with higher.innerloop_ctx(
            network, inner, copy_initial_weights=False, override={"lr": rates}
        ) as (adapted, optimizer):
            for _ in range(2):
                optimizer.step(F.cross_entropy(adapted(support), episodes.support_labels))
            F.cross_entropy(adapted(query), episodes.query_labels).backward()
    ours = adjoint.meta_gradient(params, alpha, episodes, 2)
    for name, value, rate in zip(params, network.values, rates, strict=True):
        torch.testing.assert_close(ours.params[name], value.grad / 2, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.alpha[name], rate.grad / 2, rtol=1e-9, atol=1e-12)


def test_adapts_many_tasks_at_once():
    params, alpha, episodes = random_setting("meta-sgd", 28, channels=3, n_shot=2, n_tasks=3)
    adapted = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 3)
    logits = adjoint.logits(adapted, episodes.query)
    (embeddings,) = adjoint.embed([adapted], episodes.query)
    for task, support in enumerate(episodes.support):
        expected = adaptation.adapt(params, alpha, support, episodes.support_labels, 3)
        for name, value in expected.items():
            torch.testing.assert_close(adapted[name][task], value, rtol=1e-10, atol=1e-12)
        query = episodes.query[task]
        torch.testing.assert_close(embeddings[task], model.embed(expected, query))
        torch.testing.assert_close(logits[task], model.forward(expected, query))


def test_adapting_goes_on_from_parameters_of_each_tasks_own():
    params, alpha, episodes = random_setting("meta-sgd", 16, n_tasks=3)
    support, labels = episodes.support, episodes.support_labels
    halfway = adjoint.adapt(params, alpha, support, labels, 2)
    there = adjoint.adapt(halfway, alpha, support, labels, 1)
    for name, value in adjoint.adapt(params, alpha, support, labels, 3).items():
        torch.testing.assert_close(there[name], value)


def test_embeds_many_tasks_with_shared_parameters():
    params, alpha, episodes = random_setting("maml", 16, n_tasks=3)
    (embeddings,) = adjoint.embed([params], episodes.query)
    assert adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 0)[
        "conv1.weight"
    ].shape == (3, *params["conv1.weight"].shape)
    for task, query in enumerate(episodes.query):
        torch.testing.assert_close(embeddings[task], model.embed(params, query))


def test_anil_moves_the_head_alone():
    params, alpha, episodes = random_setting("anil", 16)
    adapted = adjoint.adapt(params, alpha, episodes.support, episodes.support_labels, 2)
    for name, value in params.items():
        moved = not torch.equal(adapted[name][0], value)
        assert moved == (layer_and_group(name)[0] == "logits"), name


def test_leaves_no_graph_on_parameters_that_require_gradients():
    params, alpha, episodes = random_setting("meta-sgd", 16)
    expected = adjoint.meta_gradient(params, alpha, episodes, 2)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    result = adjoint.meta_gradient(leaves, alpha, episodes, 2)
    assert not any(value.requires_grad for value in result.params.values())
    assert_same(result, expected, 1e-12)


@pytest.mark.parametrize(
    ("n_tasks", "n_threads", "n_cores", "expected"),
    [(3, 2, 2, 3), (3, 2, 8, 2), (3, 4, 4, 3), (20, 2, 2, 2), (4, 2, 2, 2), (5, 3, 2, 5)],
)
def test_no_core_is_idle_while_a_last_task_is_alone(
    n_tasks, n_threads, n_cores, expected, monkeypatch
):
    monkeypatch.setattr(adjoint, "cores", lambda: n_cores)
    assert adjoint._at_once(n_tasks, n_threads) == expected


@pytest.mark.parametrize("n_filters", [4, 32], ids=["torch", "c"])
def test_does_not_depend_on_the_number_of_threads(n_filters, set_threads):
    params, alpha, episodes = random_setting("meta-sgd", 28, n_tasks=3, n_filters=n_filters)
    set_threads(1)
    expected = adjoint.meta_gradient(params, alpha, episodes, 2)
    set_threads(2)
    result = adjoint.meta_gradient(params, alpha, episodes, 2)
    assert torch.get_num_threads() == 2
    for name, value in expected.params.items():
        assert torch.equal(result.params[name], value), name


@pytest.mark.parametrize("first_order", [False, True])
def test_tasks_all_at_once_as_on_a_gpu(monkeypatch, first_order):
    params, alpha, episodes = random_setting("meta-sgd", 28, channels=3, n_tasks=3)
    expected = adaptation.meta_gradient(params, alpha, episodes, 2, first_order)
    monkeypatch.setattr(adjoint, "_each_task", lambda function, *tensors: [function(*tensors)])
    assert_same(adjoint.meta_gradient(params, alpha, episodes, 2, first_order), expected, 1e-10)
