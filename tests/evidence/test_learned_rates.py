"""Table 1 and the distance to it, against rates whose moments are known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from negmeta_utils.evidence.learned_rates import (
    PAPER_TABLE_1,
    distance_to_paper,
    last_mean_rates,
    rates_against_start,
    share_negative,
    table_1,
    with_batchnorm,
)
from negmeta_utils.model import init_params
from negmeta_utils.rates import summarise_rates


@pytest.fixture
def alpha():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) - 0.3
        for name, value in init_params(0, 1, 28, 5, 4).items()
    }


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


def test_table_1_is_of_known_seeds_where_there_are_any(alpha):
    tables = {
        seed: summarise_rates({name: value + shift for name, value in alpha.items()}, seed, 8)
        for seed, shift in ((0, 0.0), (1, 0.1), (-5, 0.9), (-6, 0.5))
    }
    known, unknown = (pd.concat([tables[s] for s in seeds]) for seeds in ((0, 1), (-5, -6)))
    pd.testing.assert_frame_equal(table_1(pd.concat([known, unknown])), table_1(known))
    alone = table_1(unknown)
    means = unknown.groupby(["group", "layer"])["mean"].mean()
    assert alone.set_index(["group", "layer"])["mean"].to_dict() == pytest.approx(means.to_dict())
    assert alone["mean_low"].isna().all()


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


def test_two_networks_of_one_seed_are_refused(four_seeds):
    """The longer one would be taken for both, without a word."""
    longer = four_seeds[four_seeds["seed"] == 2].assign(update=lambda rows: 3 * rows["update"])
    both = pd.concat([four_seeds, longer])
    for function in (table_1, rates_against_start, with_batchnorm, last_mean_rates):
        with pytest.raises(ValueError, match="two networks of seed 2; pass one network of each"):
            function(both)


def test_rates_with_batch_normalisations_are_the_layers_rates_taken_together(alpha):
    rows = with_batchnorm(summarise_rates(alpha, 3, 7)).set_index("layer")
    for layer, norm in [(f"conv{b}", f"norm{b}") for b in (1, 2, 3, 4)] + [("logits", "none")]:
        of_layer = [v for n, v in alpha.items() if n.split(".")[0] in (layer, norm)]
        values = torch.cat([value.flatten() for value in of_layer]).double().numpy()
        row = rows.loc[layer]
        assert row["n"] == len(values)
        assert row["mean"] == pytest.approx(values.mean())
        assert row["std"] == pytest.approx(values.std())
        assert row["share_negative"] == pytest.approx((values < 0).mean())
    table = table_1(with_batchnorm(summarise_rates(alpha, 3, 7)))
    assert table["paper std"].tolist() == PAPER_TABLE_1["paper std"].tolist()


def like_the_paper(factors, signs, seed=0, update=10):
    """A training whose weights' standard deviations are the paper's times `factors` and whose
    means are the paper's times `signs`; batch normalisation's rates have mean 0 and no spread."""
    paper = PAPER_TABLE_1.rename(columns={"paper mean": "mean", "paper std": "std"})
    weights = paper.assign(group="weights+bias", n=900, share_negative=0.5)
    weights["std"] *= factors
    weights["mean"] *= signs
    norms = weights[weights["layer"] != "logits"].assign(group="batchnorm", mean=0, std=0, n=100)
    return pd.concat([weights, norms]).assign(seed=seed, update=update)


@pytest.mark.parametrize(
    ("factors", "distance"),
    [
        ([1, 1, 1, 1, 1], 0),
        ([2, 2, 2, 2, 2], math.log(2)),
        ([2, 0.5, 2, 0.5, 2], math.log(2)),  # too narrow is as far as too wide
        ([10, 1, 1, 1, 1], math.log(10) / math.sqrt(5)),
        ([0, 1, 1, 1, 1], math.inf),
    ],
)
def test_the_distance_is_the_root_mean_square_of_logarithms(factors, distance):
    table = distance_to_paper(like_the_paper(factors, [1, 1, -1, -1, 1])).set_index("group")
    row = table.loc["weights+bias"]
    assert row["distance"] == pytest.approx(distance, abs=1e-12)
    assert row["signs"] == 3


def test_the_distance_with_batch_normalisation_counts_its_rates():
    rates = like_the_paper(1, 1)
    row = distance_to_paper(rates).set_index("group").loc["both"]
    squares = []
    for layer, mean, std in PAPER_TABLE_1.itertuples(index=False):
        # Of 1,000 rates 100 are 0: the variance of a mixture.
        mixed = (
            std if layer == "logits" else math.sqrt(0.9 * (std**2 + mean**2) - (0.9 * mean) ** 2)
        )
        squares.append(math.log(mixed / std) ** 2)
    assert row["distance"] == pytest.approx(math.sqrt(sum(squares) / 5))
    assert row["signs"] == 5


def test_every_seed_and_update_has_its_own_distance():
    rates = pd.concat(
        [like_the_paper(factor, 1, seed, update) for factor, seed, update in
         ((4, 0, 10), (2, 0, 20), (1, 1, 10))]
    )  # fmt: skip
    table = distance_to_paper(rates).query("group == 'weights+bias'")
    found = table.set_index(["seed", "update"])["distance"].round(9).to_dict()
    expected = {(0, 10): math.log(4), (0, 20): math.log(2), (1, 10): 0}
    assert found == {key: round(value, 9) for key, value in expected.items()}
