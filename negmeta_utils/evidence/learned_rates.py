"""What the learned inner rates say: table 1, and how far a training is from the paper's."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from negmeta_utils.evidence.intervals import estimate
from negmeta_utils.evidence.quantities import sample_of_seeds

COLUMNS = ["seed", "update", "layer", "group", "mean"]  # what the claims need
WEIGHTS, BOTH = "weights+bias", "both"  # the second with batch normalisation's rates
PAPER_TABLE_1 = pd.DataFrame(
    {
        "layer": ["conv1", "conv2", "conv3", "conv4", "logits"],
        "paper mean": [-0.006, -0.004, -0.013, -0.018, 0.043],
        "paper std": [0.032, 0.027, 0.027, 0.030, 0.072],
    }
)


def table_1(rates: pd.DataFrame) -> pd.DataFrame:
    """Table 1 at the last update of each seed, beside the paper's; one row a group and layer.

    rates: as `rates.summarise_rates` gives. Columns: group, layer; mean, std and share_negative
    (averages over seeds); mean_low and mean_high, share_low and share_high (95 % t intervals over
    seeds, the share's cut off at 0 and 1; NaN with one seed); rates (their number), paper mean,
    paper std. Networks of unknown seed count where there are no others. Raises ValueError for two
    networks of one seed.
    """
    rows = []
    for (group, layer), networks in _last(rates).groupby(["group", "layer"]):
        own = sample_of_seeds(networks.set_index("seed")[["mean", "std", "share_negative"]])
        mean = estimate(own["mean"]).interval()
        share = estimate(own["share_negative"]).interval()
        rows.append(
            {
                "group": group,
                "layer": layer,
                "mean": mean.mean,
                "mean_low": mean.low,
                "mean_high": mean.high,
                "std": own["std"].mean(),
                "share_negative": share.mean,
                "share_low": np.maximum(share.low, 0),
                "share_high": np.minimum(share.high, 1),
                "rates": networks["n"].iloc[0],
            }
        )
    paper = pd.concat([_paper(rates).assign(group=group) for group in (WEIGHTS, BOTH)])
    return _in_order(pd.DataFrame(rows).merge(paper, how="left", on=["group", "layer"]), rates)


def with_batchnorm(rates: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as the public code with the paper's layer names counts it: batch normalisation's
    rates in the layer that they follow.

    rates: as `rates.summarise_rates` gives. One row a seed, update and layer, of the group "both",
    without quantiles, which cannot be joined. Raises ValueError for two networks of one seed.
    """
    _check_one_a_seed(rates)
    keys = ["seed", "update", "layer"]
    rows = rates.assign(
        total=rates["n"] * rates["mean"],
        squares=rates["n"] * (rates["std"] ** 2 + rates["mean"] ** 2),
        negative=rates["n"] * rates["share_negative"],
    )
    sums = rows.groupby(keys, sort=False)[["n", "total", "squares", "negative"]].sum()
    mean = sums["total"] / sums["n"]
    joined = {
        "group": BOTH,
        "mean": mean,
        "std": np.sqrt((sums["squares"] / sums["n"] - mean**2).clip(lower=0)),
        "share_negative": sums["negative"] / sums["n"],
        "n": sums["n"],
    }
    return pd.DataFrame(joined).reset_index()


def distance_to_paper(rates: pd.DataFrame) -> pd.DataFrame:
    """How far the rates of every seed and update are from the paper's table 1; one row each, and
    each twice, by `group`: weights and biases alone, and with batch normalisation's.

    rates: as `rates.summarise_rates` gives. Columns: group, seed, update; distance, the root mean
    square over the five layers of log(std / paper's std), infinite where a standard deviation is
    0; signs, of how many of the five the mean has the paper's sign. The nearer recipe is the one
    of the smaller distance, and of equal ones that of more signs. A distance of 0.69 is a factor
    of two. Empty for a network of other layers than the paper's.
    """
    both = pd.concat([rates[rates["group"] == WEIGHTS], with_batchnorm(rates)])
    rows = both.merge(_paper(rates), on="layer")
    with np.errstate(divide="ignore"):
        rows["square"] = np.log(rows["std"] / rows["paper std"]) ** 2
    rows["right"] = np.sign(rows["mean"]) == np.sign(rows["paper mean"])
    by_point = rows.groupby(["group", "seed", "update"])
    table = pd.DataFrame(
        {"distance": np.sqrt(by_point["square"].mean()), "signs": by_point["right"].sum()}
    )
    return table.reset_index()


def each_network(
    function: Callable[[pd.DataFrame], pd.DataFrame], rates: pd.DataFrame
) -> pd.DataFrame:
    """`function` of the rows of each network in turn, one table below the other: of trainings, or
    of networks kept along them, as the column `network` says, which stands in front."""
    tables = {name: function(rows) for name, rows in rates.groupby("network", sort=False)}
    return pd.concat(tables, names=["network"]).reset_index(level=0).reset_index(drop=True)


def starts_known(rates: pd.DataFrame) -> bool:
    """Whether each seed has a row of update 0; that of an imported network is not known."""
    return set(rates["seed"]) == set(rates.loc[rates["update"] == 0, "seed"])


def rates_against_start(rates: pd.DataFrame) -> pd.DataFrame:
    """Have the rates moved, and become negative? t-tests over seeds; one row a group and layer.

    rates: as `rates.summarise_rates` gives, from update 0 on, where training had not begun. Every
    seed is compared with its own start. Columns: group, layer, seeds; start and change of the mean
    rate, change_low and change_high (95 %), p_start (two-sided, of a mean rate as at the start),
    p_zero (of a mean rate of zero); share_start, share_change and p_share (of a share of negative
    rates as at the start). NaN with one seed. A share near 0 or 1 is skewed between seeds, and its
    p-value rough. No correction is made for the number of rows. Raises ValueError for a seed
    without update 0, and for two networks of one seed.
    """
    first = rates[rates["update"] == 0]
    if missing := sorted(set(rates["seed"]) - set(first["seed"])):
        raise ValueError(f"rates: seed {missing[0]} has no row of update 0; pass whole trainings")
    keys = ["group", "layer", "seed"]
    both = _last(rates).merge(first, on=keys, suffixes=("", "_start"), validate="one_to_one")
    rows = []
    for (group, layer), networks in both.groupby(["group", "layer"]):
        change = estimate(networks["mean"] - networks["mean_start"])
        share = estimate(networks["share_negative"] - networks["share_negative_start"])
        rows.append(
            {
                "group": group,
                "layer": layer,
                "seeds": len(networks),
                "start": networks["mean_start"].mean(),
                "change": change.mean,
                "change_low": change.interval().low,
                "change_high": change.interval().high,
                "p_start": change.p_different(0),
                "p_zero": estimate(networks["mean"]).p_different(0),
                "share_start": networks["share_negative_start"].mean(),
                "share_change": share.mean,
                "p_share": share.p_different(0),
            }
        )
    return _in_order(pd.DataFrame(rows), rates)


def _check_one_a_seed(rates: pd.DataFrame) -> None:
    """Raise ValueError where two networks of one seed stand in one table: either would be taken for
    the other, or both for one."""
    repeated = rates.duplicated(["seed", "update", "layer", "group"])
    if repeated.any():
        seed = rates.loc[repeated, "seed"].iloc[0]
        raise ValueError(f"rates: two networks of seed {seed}; pass one network of each seed")


def _last(rates: pd.DataFrame) -> pd.DataFrame:
    _check_one_a_seed(rates)
    return rates[rates["update"] == rates.groupby("seed")["update"].transform("max")]


def last_mean_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """Mean rate of weights and biases at each network's last update: [seeds, layers], from the
    image to the classes.

    Raises ValueError for missing columns, two networks of one seed, or of different layers.
    """
    missing = [column for column in COLUMNS if column not in rates]
    if missing:
        raise ValueError(f"rates: missing column(s) {', '.join(missing)}; see notebook 2")
    last = _last(rates)
    last = last[last["group"] == WEIGHTS]
    means = last.pivot(index="seed", columns="layer", values="mean")[layers_of(last)]
    if means.empty or means.isna().to_numpy().any():
        raise ValueError("rates: networks differ in their layers; judge those of one kind together")
    return means


def is_papers(layers: Iterable[str]) -> bool:
    """Whether these are the layers of the paper's network."""
    return set(layers) == set(PAPER_TABLE_1["layer"])


def layers_of(rates: pd.DataFrame) -> list[str]:
    """Layers from the image to the classes: the paper's, or those of another network as they come
    in `rates`."""
    found = list(rates["layer"].unique())
    return list(PAPER_TABLE_1["layer"]) if is_papers(found) else found


def _paper(rates: pd.DataFrame) -> pd.DataFrame:
    """The paper's table 1; without rows for a network of other layers."""
    return PAPER_TABLE_1 if is_papers(rates["layer"]) else PAPER_TABLE_1.head(0)


def _in_order(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Weights first, as in the paper, and layers from the image to the classes."""
    place = {layer: number for number, layer in enumerate(layers_of(rates))}
    table = table.sort_values("layer", key=lambda layer: layer.map(place))
    return table.sort_values("group", ascending=False, kind="stable", ignore_index=True)


def share_negative(table: pd.DataFrame) -> float:
    """Share of negative rates among all weights and biases of a `table_1`."""
    rows = table[table["group"] == WEIGHTS]
    return (rows["share_negative"] * rows["rates"]).sum() / rows["rates"].sum()
