"""Rates of biases before batch normalisation, which cannot move: what table 1 is without them."""

import pandas as pd
import pytest
import torch
from answers import FIGURES

from negmeta_utils.adaptation import init_alpha
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.words import signed
from negmeta_utils.model import init_params
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.rates import rates_that_move
from negmeta_utils.runs import load_run
from negmeta_utils.storage.paths import ROOT

RESULTS = (ROOT / "docs" / "results.md").read_text()
README = (ROOT / "README.md").read_text()
FOLDERS = {
    "decide/alpha": [f"figures/decide/networks/meta-sgd-meta-sgd-{seed}" for seed in range(8)],
    "length/alpha": [f"figures/length/networks/meta-sgd-{seed}" for seed in range(3, 8)],
    "paper-84/alpha": ["mini-imagenet-meta-sgd-0"],
    "paper-28": ["figures/paper-28/networks/meta-sgd-0"],
    "recipes/longest": ["figures/recipes/network"],
}


def published(folder):
    return pd.read_csv(FIGURES / folder / "table1_weights.csv").set_index("layer")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_published_tables_are_of_the_published_networks(folder):
    table = table_1(pd.concat([rates_that_move(load_run(name)) for name in FOLDERS[folder]]))
    again = table[table["group"] == "weights+bias"].set_index("layer")
    columns = ["mean", "mean_low", "mean_high", "std", "share_negative", "rates"]
    pd.testing.assert_frame_equal(again[columns], published(folder)[columns], atol=1e-5)


def test_a_bias_keeps_the_rate_it_started_with():
    """Shipped networks' rates started from 0.01; later ones are drawn apart from the weights."""
    run = load_run("glyphs-meta-sgd-0")
    still = {name for name, rate in run.alpha.items() if (rate == rate.flatten()[0]).all()}
    assert still == CONV4.still and all(
        run.alpha[name][0] == torch.tensor(0.01) for name in CONV4.still
    )
    params = init_params(0, 3, 28, 5, 64)
    started = init_alpha("meta-sgd", params, alpha_init="uniform", seed=0)
    assert sum(started[name].numel() for name in CONV4.still) == 4 * 64
    biases = [load_run(name).alpha["conv1.bias"] for name in FOLDERS["decide/alpha"]]
    assert f"stays where it started, at {torch.cat(biases).mean():.3f} on average" in RESULTS


def test_what_is_said_of_table_1_without_them():
    eight = published("decide/alpha")
    own = eight.loc["conv1"]
    said = f"{signed(own['mean'], 4)} [{signed(own['mean_low'], 4)}, {signed(own['mean_high'], 4)}]"
    assert f"conv1's mean is {said}, and negative in two of the eight" in RESULTS
    assert f"which cannot move, conv1's mean is {said}." in README
    each = pd.concat([rates_that_move(load_run(name)) for name in FOLDERS["decide/alpha"]])
    own = each[(each["layer"] == "conv1") & (each["group"] == "weights+bias")]
    assert (own["mean"] < 0).sum() == 2
    table = pd.read_csv(FIGURES / "decide" / "alpha" / "table1.csv").set_index(["group", "layer"])
    apart = (table.loc["weights+bias", "mean"] - eight["mean"]).abs()
    assert (apart.drop("conv1") < 0.00015).all(), "the other layers' differ by 0.0001 at most"
    assert (table.loc["weights+bias", "rates"] - eight["rates"])["conv1"] == 64
    for folder, said in (
        ("length/alpha", "which cannot move, conv1's is {})"),
        ("paper-84/alpha", "which cannot move, conv1's mean is {} and was negative from"),
    ):
        assert said.format(signed(published(folder).loc["conv1", "mean"], 4)) in RESULTS


def without_biases(rates, run):
    """Mean rates [updates, layers] of the convolutions' weights alone, from a table of all; `run`
    has the biases' rates."""
    own = rates[rates["group"] == "weights+bias"]
    sums = own.assign(sum=own["n"] * own["mean"]).pivot(index="update", columns="layer")
    means = {}
    for name in sorted(CONV4.still):
        layer, rate = name.partition(".")[0], run.alpha[name].double()
        weights = sums["n"][layer] - rate.numel()
        means[layer] = (sums["sum"][layer] - float(rate.sum())) / weights
    return pd.DataFrame(means)


def test_along_the_training_at_the_papers_size():
    run = load_run("mini-imagenet-meta-sgd-0")
    negative = without_biases(run.rates(), run) < 0
    own = negative.index[negative["conv1"]]
    assert f"and was negative from {own[0]:,} to {own[-1]:,}, and all four never were" in RESULTS
    assert not negative.all(axis=1).any()


def test_of_eight_recipes_one_has_a_negative_mean_in_conv1():
    """All eight trainings have seed 0, and those from U[0.005, 0.1] the same start as the network
    that was trained on."""
    rates = pd.read_parquet(FIGURES / "recipes" / "recipes.parquet")
    run, found = load_run("figures/recipes/network"), []
    for _, recipe in rates[rates["alpha_init"] != "0.01"].groupby("recipe"):
        found.append(without_biases(recipe, run)["conv1"].iloc[-1])
    (negative,) = (mean for mean in found if mean < 0)
    assert f"which cannot move, conv1's is in one, {signed(negative, 4)})" in RESULTS
