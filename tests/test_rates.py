import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from negmeta_utils.model import init_params
from negmeta_utils.rates import (
    rates_against_start,
    rates_long,
    share_negative,
    summarise_rates,
    table_1,
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
    assert row["q25"] == pytest.approx(np.quantile(values, 0.25), rel=1e-5)
    assert (row["seed"], row["update"]) == (3, 7)
    assert table.loc["conv2", "batchnorm"]["n"] == 8
    assert len(table) == 9


def test_the_long_table_has_every_rate_once(alpha):
    long = rates_long(alpha, 0)
    assert len(long) == sum(value.numel() for value in alpha.values())
    conv1 = long[(long["layer"] == "conv1") & (long["group"] == "weights+bias")]["rate"]
    expected = torch.cat([alpha["conv1.weight"].flatten(), alpha["conv1.bias"]])
    assert sorted(conv1) == pytest.approx(sorted(expected.tolist()))


def test_table_1_averages_the_last_update_over_seeds(alpha):
    shifted = {name: value + 0.2 for name, value in alpha.items()}
    rates = pd.concat(
        [
            summarise_rates({name: 0 * value for name, value in alpha.items()}, 0, 5),
            summarise_rates(alpha, seed=0, update=10),
            summarise_rates(shifted, seed=1, update=8),
        ]
    )
    table = table_1(rates).set_index(["group", "layer"])
    row = table.loc["weights+bias", "conv4"]
    values = torch.cat([alpha["conv4.weight"].flatten(), alpha["conv4.bias"]]).double()
    assert row["mean"] == pytest.approx(values.mean().item() + 0.1, rel=1e-4)
    assert (row["paper mean"], row["paper std"]) == (-0.018, 0.030)
    assert [layer for _, layer in table.index[:5]] == ["conv1", "conv2", "conv3", "conv4", "logits"]


def test_the_share_of_negative_rates_counts_every_weight_and_bias_once(alpha):
    table = table_1(summarise_rates(alpha, 0, 1))
    values = torch.cat([v.flatten() for n, v in alpha.items() if not n.startswith("norm")])
    assert share_negative(table) == pytest.approx((values < 0).double().mean().item())


@pytest.fixture
def four_seeds(alpha):
    """A training of four seeds that moves every rate by about -0.4 from starts of its own."""
    generator = torch.Generator().manual_seed(1)
    tables = []
    for seed in range(4):
        start = {n: torch.rand(v.shape, generator=generator) for n, v in alpha.items()}
        shift = -0.4 + 0.1 * torch.randn((), generator=generator)
        end = {name: value + shift for name, value in start.items()}
        tables += [summarise_rates(start, seed, 0), summarise_rates(end, seed, 50 + seed)]
    return pd.concat(tables, ignore_index=True)


def of_conv3(rates, column):
    """Its values at the start and at the end, one a seed."""
    rows = rates[(rates["layer"] == "conv3") & (rates["group"] == "weights+bias")]
    first, last = rows[rows["update"] == 0], rows[rows["update"] > 0]
    return first[column].to_numpy(), last[column].to_numpy()


def test_table_1_has_t_intervals_over_seeds(four_seeds):
    row = table_1(four_seeds).set_index(["group", "layer"]).loc["weights+bias", "conv3"]
    for column, short in (("mean", "mean"), ("share_negative", "share")):
        values = of_conv3(four_seeds, column)[1]
        oracle = stats.ttest_1samp(values, 0).confidence_interval()
        np.testing.assert_allclose(row[[f"{short}_low", f"{short}_high"]].tolist(), oracle)
        assert row[column] == pytest.approx(values.mean())


def test_rates_are_tested_against_their_own_start_and_zero(four_seeds):
    row = rates_against_start(four_seeds).set_index(["group", "layer"]).loc["weights+bias", "conv3"]
    start, end = of_conv3(four_seeds, "mean")
    paired = stats.ttest_rel(end, start)
    assert row.p_start == pytest.approx(paired.pvalue)
    bounds = row[["change_low", "change_high"]].tolist()
    np.testing.assert_allclose(bounds, paired.confidence_interval())
    assert row.p_zero == pytest.approx(stats.ttest_1samp(end, 0).pvalue)
    assert row.start == pytest.approx(start.mean())
    assert row.change == pytest.approx((end - start).mean())
    share = stats.ttest_rel(*of_conv3(four_seeds, "share_negative")[::-1])
    assert row.p_share == pytest.approx(share.pvalue)
    assert row.seeds == 4


def test_a_mean_can_be_positive_and_far_below_its_start(four_seeds):
    rates = four_seeds.copy()
    rates["mean"] = np.where(rates["update"] == 0, 0.5, 0.1 + 0.01 * rates["seed"])
    rates["share_negative"] = 0.0
    row = rates_against_start(rates).iloc[0]
    assert row.change < 0 and row.p_start < 0.01 and row.p_zero < 0.01
    assert row.p_share == 1  # no rate of any seed has become negative
    table = table_1(rates)
    assert (table.share_low == 0).all() and (table.share_high == 0).all()


def test_one_seed_has_means_without_intervals_or_tests(four_seeds):
    one = four_seeds[four_seeds["seed"] == 0]
    table, tests = table_1(one), rates_against_start(one)
    assert table[["mean_low", "mean_high", "share_low", "share_high"]].isna().all(axis=None)
    assert tests[["change_low", "p_start", "p_zero", "p_share"]].isna().all(axis=None)
    assert table[["mean", "share_negative"]].notna().all(axis=None)
    assert tests[["change", "share_change"]].notna().all(axis=None)


def test_rates_without_their_start_are_refused(four_seeds):
    cut = four_seeds[(four_seeds["seed"] != 2) | (four_seeds["update"] > 0)]
    with pytest.raises(ValueError, match="seed 2 has no row of update 0"):
        rates_against_start(cut)


def test_a_table_of_rates_gives_every_tensor_back_rounded(alpha):
    table = table_of_rates(alpha, update=7, precision=0.01)
    assert set(table["update"]) == {7}
    for name, values in table.groupby("name", observed=True)["rate"]:
        expected = [round(value, 2) for value in alpha[name].flatten().tolist()]
        assert values.tolist() == pytest.approx(expected, abs=1e-6)
    assert set(table["name"]) == set(alpha)
