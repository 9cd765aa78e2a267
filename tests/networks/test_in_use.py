"""Networks other than the paper's, through the doors that notebooks use."""

from dataclasses import replace

import pytest
import torch
from in_process import execute
from tiny_network import TINY

import negmeta_utils as nm
from negmeta_utils.adaptation import METHODS, init_alpha, loss_of, task_loss
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine.engines import engine_of, resolve_engine
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.evaluation import evaluate, evaluate_features, shared_test_images
from negmeta_utils.evidence.learned_rates import rates_against_start, table_1
from negmeta_utils.evidence.quantities import changes
from negmeta_utils.explore.measures import adaptation_steps, episode_answers, layer_rates
from negmeta_utils.networks.catalogue import NETWORKS
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.plots import learned_rates
from negmeta_utils.questions.geometry import measure_geometry
from negmeta_utils.questions.interventions import adaptations, interventions, parts
from negmeta_utils.questions.uses import evaluate_uses
from negmeta_utils.runs import load_run, network_of
from negmeta_utils.training import train

RESNET12 = NETWORKS["resnet12"]
SHORT = dict(n_updates=2, val_every=1, n_tasks=1, inner_steps=1, val_episodes=1, test_episodes=2)


@pytest.fixture(scope="module")
def residual(tiny_config, tmp_path_factory):
    config = replace(tiny_config, method="meta-sgd", network="resnet12", n_filters=4, **SHORT)
    return train(config, tmp_path_factory.mktemp("residual"))


def test_a_resnet12_goes_all_the_way(residual, tiny_data):
    assert residual.parameters["engine"] == "reference"
    images = shared_test_images([residual], str(tiny_data))
    table = evaluate_features(residual, images, 2)
    assert table["same_before"].between(0, 1).all() and len(table) == 2
    rows = table_1(residual.rates())
    weights = rows[rows["group"] == "weights+bias"]
    assert tuple(weights["layer"]) == RESNET12.layers
    assert weights["paper mean"].isna().all(), "the paper has no numbers for this network"
    assert len(rates_against_start(residual.rates())) == len(rows)
    geometry = measure_geometry([residual], images, 1)
    assert tuple(geometry["layer"].unique()) == RESNET12.body
    kept = layer_rates(residual, "block2.shortcut")
    assert kept.filters.shape[1:] == (10, 4)
    assert len(episode_answers(residual, images, 0).table) == 6
    assert len(adaptation_steps(residual, images, 0, 2).curves) == 3
    assert set(evaluate_uses([residual], images, [1], 1)["use"]) >= {"1 other task"}
    ways = adaptations(residual, images, 0)
    assert "negative set to zero, steps as long" in ways


def test_figures_take_layers_as_they_come(residual):
    rates = residual.rates()
    weights = rates[rates["group"] == "weights+bias"]
    figure = learned_rates.rates_over_training(weights)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == list(RESNET12.layers)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 2 * len(RESNET12.layers)


@pytest.mark.parametrize("method", METHODS)
def test_methods_move_groups_of_layers(method):
    params = RESNET12.init(0, 1, 16, 3, 4)
    alpha = init_alpha(method, params, 0.1, network=RESNET12)
    moved = {RESNET12.layer_and_group(name)[0] for name, rate in alpha.items() if rate.any()}
    wanted = {"anil": {"logits"}, "boil": set(RESNET12.body), "protonet": set()}
    assert moved == wanted.get(method, set(RESNET12.layers))


def test_interventions_take_groups_of_any_network():
    params = RESNET12.init(0, 1, 16, 3, 4)
    alpha = {name: torch.randn(value.shape) for name, value in params.items()}
    changed = interventions(alpha, network=RESNET12)
    assert not changed["batch norm only"]["block1.conv1.weight"].any()
    assert changed["batch norm only"]["block1.conv1.norm.weight"].any()
    assert changed["linear layer only"]["logits.bias"].any()
    of_one = parts(alpha, RESNET12)["block3.shortcut only"]
    touched = {name for name, value in of_one.items() if value.any()}
    assert touched == {f"block3.shortcut.{n}" for n in ("weight", "norm.weight", "norm.bias")}


def test_the_reference_engine_is_the_adjoint_where_both_can(random_images):
    """Conv4 under another name is computed by the reference."""
    other = replace(CONV4, name="conv4 again")
    params = {n: v.double() for n, v in CONV4.init(0, 1, 16, 3, 4).items()}
    alpha = {n: torch.full(v.shape, 0.1, dtype=torch.float64) for n, v in params.items()}
    episodes = draw_episodes(random_images, 0, "train", range(2), 3, 1, 2, torch.float64)
    ours, theirs = engine_of(CONV4), engine_of(other)
    support, labels = episodes.support, episodes.support_labels
    adapted = [engine.adapt(params, alpha, support, labels, 2) for engine in (ours, theirs)]
    for name in params:
        torch.testing.assert_close(adapted[0][name], adapted[1][name])
    for values in (params, adapted[0]):
        features = [engine.embed([values], episodes.query)[0] for engine in (ours, theirs)]
        torch.testing.assert_close(features[0], features[1])
        torch.testing.assert_close(ours.head(values, features[0]), theirs.head(values, features[0]))
        torch.testing.assert_close(
            ours.logits(values, episodes.query), theirs.logits(values, episodes.query)
        )
    gradients = [engine.meta_gradient(params, alpha, episodes, 2) for engine in (ours, theirs)]
    for name in params:
        torch.testing.assert_close(gradients[0].params[name], gradients[1].params[name])
        torch.testing.assert_close(gradients[0].alpha[name], gradients[1].alpha[name])
    gradients = [engine.prototype_gradient(params, episodes) for engine in (ours, theirs)]
    for name in params:
        torch.testing.assert_close(gradients[0].params[name], gradients[1].params[name])


def test_engines_by_name():
    assert resolve_engine("auto", CONV4) == "adjoint"
    assert resolve_engine("reference", CONV4) == "reference"
    assert resolve_engine("auto", RESNET12) == "reference"
    with pytest.raises(ValueError, match="engine='adjoint': written for conv4, not resnet12"):
        TrainConfig(network="resnet12", engine="adjoint")
    with pytest.raises(ValueError, match="engine='fast': not one of auto"):
        resolve_engine("fast", CONV4)
    with pytest.raises(ValueError, match="image_size=15: conv4 needs at least 16; raise it"):
        TrainConfig(image_size=15)


def test_a_network_in_a_file_of_ones_own(tiny_config, tmp_path):
    file = tmp_path / "nets.py"
    file.write_text(TINY)
    name = f"{file}:TinyNet"
    run = train(replace(tiny_config, network=name, method="anil", **SHORT), tmp_path / "run")
    assert run.manifest["network"]["channels"] == 3
    assert network_of(run).layers == ("conv", "fc")
    assert {n for n, rate in run.alpha.items() if rate.any()} == {"fc.weight", "fc.bias"}
    file.write_text(TINY + "\n")
    with pytest.raises(ValueError, match="trained with another .*nets.py:TinyNet than is there"):
        network_of(load_run(tmp_path / "run"))
    again = replace(tiny_config, network=name, method="anil", **SHORT)
    for longer in (again, replace(again, n_updates=2 * again.n_updates)):
        with pytest.raises(ValueError, match="run of another .*TinyNet than is there now; restore"):
            train(longer, tmp_path / "run")
    file.write_text(TINY)
    assert train(again, tmp_path / "run").params.keys() == run.params.keys()


def test_notebook_1_shows_the_inner_loop_of_the_network_that_it_trains(tmp_path):
    (tmp_path / "nets.py").write_text(TINY)
    settings = {"image_size": 8, "method": "boil", "network": f"{tmp_path}/nets.py:TinyNet"}
    seen = execute("01_train", {**settings, **SHORT, "out_dir": str(tmp_path / "run")})
    images = nm.load_data("glyphs", "train", image_size=8)
    net = TrainConfig(dataset="glyphs", **settings).find_network(images)
    params = net.init(0, 1, 8, 5, 16)
    alpha = init_alpha("boil", params, network=net)
    task = draw_episodes(images, 0, "train", [0], 5, 1, 10)
    given = task.support[0], task.support_labels, task.query[0], task.query_labels
    before, after = (
        task_loss(params, alpha, *given, steps, loss=loss_of(net))[0] for steps in (0, 1)
    )
    assert f"query loss of a fresh network: {before:.3f}; after 1 steps: {after:.3f}" in seen


def test_plain_tensors_are_evaluated_as_the_run_that_holds_them(run, tiny_data):
    images = shared_test_images([run], str(tiny_data))
    settings = {n: run.parameters[n] for n in ("n_way", "n_shot", "n_query", "inner_steps")}
    settings |= {name: run.parameters[name] for name in ("method", "seed")}
    found = evaluate(network_of(run), run.params, run.alpha, images, 3, **settings)
    assert found.equals(evaluate_features(run, images, 3))
    assert len(changes(found)) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_episodes": 0}, "n_episodes=0: must be at least 1"),
        ({"n_way": 99}, "n_way=99: this split has"),
        ({"n_way": 0}, "n_way=0: must be at least 1"),
        ({"n_shot": 0}, "n_shot=0: must be at least 1"),
        ({"n_query": 0}, "n_query=0: must be at least 1"),
        ({"eval_seed": -1}, "eval_seed=-1: must be at least 0"),
        ({"method": "mamml"}, "method='mamml': not one of maml"),
        ({"alpha": {}}, "alpha: no rate for 'conv1.bias'"),
        (
            {"alpha": {"conv9.bias": torch.zeros(())}},
            "alpha: 'conv9.bias' is no parameter of conv4",
        ),
        ({"params": {}}, "params: 'conv1.bias' is missing"),
        ({"alpha": 0.01}, "alpha: must be tensors by the names of parameters"),
        ({"network": torch.nn.Linear(2, 2)}, "network: a Linear; make a network of it by"),
        (
            {"params": {"conv1.bias": torch.zeros(4)}, "alpha": {"conv1.bias": torch.zeros(5)}},
            r"alpha: 'conv1.bias' is \[5\], wanted \[4\]",
        ),
        (
            {
                "params": {"conv1.bias": torch.zeros(4)},
                "alpha": {"conv1.bias": torch.zeros(4).double()},
            },
            "alpha: 'conv1.bias' is torch.float64, and its parameter torch.float32; give both one",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(random_images, change, said):
    params = CONV4.init(0, 1, 16, 3, 4)
    alpha = dict.fromkeys(params, torch.zeros(()))
    given = {"network": CONV4, "params": params, "alpha": alpha, "n_way": 3, "n_query": 2, **change}
    with pytest.raises(ValueError, match=said):
        evaluate(images=random_images, **given)


def test_images_that_do_not_go_through_are_named(random_images):
    params = CONV4.init(0, 3, 16, 3, 4)
    alpha = dict.fromkeys(params, torch.zeros(()))
    with pytest.raises(
        ValueError, match="network: conv4 with these params takes no images of 1x16x16"
    ):
        evaluate(CONV4, params, alpha, random_images, n_way=3, n_query=2)
