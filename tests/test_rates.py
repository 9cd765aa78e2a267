from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from negmeta_utils import load_pretrained
from negmeta_utils.model import init_params
from negmeta_utils.rates import (
    rates_along_training,
    rates_long,
    summarise_rates,
    table_of_rates,
)


@pytest.fixture
def alpha():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) - 0.3
        for name, value in init_params(0, 1, 28, 5, 4).items()
    }


def test_a_row_holds_a_layers_weights_and_biases(alpha):
    table = summarise_rates(alpha, seed=3, update=7).set_index(["layer", "group"])
    values = np.concatenate([alpha[f"conv2.{part}"].numpy().ravel() for part in ("weight", "bias")])
    row = table.loc["conv2", "weights+bias"]
    assert row["n"] == 4 * 4 * 9 + 4
    assert row["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert row["std"] == pytest.approx(values.std(), rel=1e-5)
    assert row["share_negative"] == pytest.approx((values < 0).mean())
    for share in (5, 25, 50, 75, 95):
        assert row[f"q{share:02}"] == pytest.approx(np.quantile(values, share / 100), rel=1e-5)
    assert (row["seed"], row["update"]) == (3, 7)
    assert table.loc["conv2", "batchnorm"]["n"] == 8
    assert len(table) == 9


def test_the_long_table_has_every_rate_once(alpha):
    long = rates_long(alpha, 0)
    assert len(long) == sum(value.numel() for value in alpha.values())
    conv1 = long[(long["layer"] == "conv1") & (long["group"] == "weights+bias")]["rate"]
    expected = torch.cat([alpha["conv1.weight"].flatten(), alpha["conv1.bias"]])
    assert sorted(conv1) == pytest.approx(sorted(expected.tolist()))


def test_a_table_of_rates_gives_every_tensor_back_rounded(alpha):
    table = table_of_rates(alpha, update=7, precision=0.01)
    assert set(table["update"]) == {7}
    for name, values in table.groupby("name", observed=True)["rate"]:
        expected = [round(value, 2) for value in alpha[name].flatten().tolist()]
        assert values.tolist() == pytest.approx(expected, abs=1e-6)
    assert set(table["name"]) == set(alpha)


def test_two_trainings_of_one_seed_are_not_taken_for_one():
    run = load_pretrained("meta-sgd", "glyphs", 0)
    assert len(rates_along_training([run, run])) == 2 * len(run.rates())  # and its networks
    with pytest.raises(ValueError, match="elsewhere: seed 0, as .*glyphs-meta-sgd-0; name one"):
        rates_along_training([run, replace(run, directory=Path("elsewhere"))])
