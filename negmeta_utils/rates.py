"""Learned inner-loop rates as tables: the material of table 1 and figure 6."""

import numpy as np
import pandas as pd
import torch

from negmeta_utils.adaptation import METHODS
from negmeta_utils.evidence.intervals import estimate
from negmeta_utils.model import Params, layer_and_group
from negmeta_utils.runs import Run

PAPER_TABLE_1 = pd.DataFrame(
    {
        "layer": ["conv1", "conv2", "conv3", "conv4", "logits"],
        "paper mean": [-0.006, -0.004, -0.013, -0.018, 0.043],
        "paper std": [0.032, 0.027, 0.027, 0.030, 0.072],
    }
)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def check_learned_rates(run: Run) -> None:
    """Raise ValueError for a run whose method learns no rates."""
    method = run.parameters["method"]
    if not METHODS[method].learns_alpha:
        raise ValueError(
            f"{run.directory}: a run of {method}, which learns no rates; name one of meta-sgd"
        )


def rates_by_row(alpha: Params) -> dict[tuple[str, str], torch.Tensor]:
    """All rates of each row of table 1, flat, keyed by (layer, group).

    The paper's table has one row a layer and does not say whether biases are in it; here they are,
    and batch normalisation's rates stand beside them as a group of their own.
    """
    rows: dict[tuple[str, str], list[torch.Tensor]] = {}
    for name in sorted(alpha, key=layer_and_group):
        rows.setdefault(layer_and_group(name), []).append(alpha[name].flatten())
    return {row: torch.cat(parts) for row, parts in rows.items()}


def summarise_rates(alpha: Params, seed: int, update: int) -> pd.DataFrame:
    """One row a layer and group: seed, update, layer, group, mean, std (of the population of
    rates), share_negative, n, and quantiles q05 to q95."""
    records = []
    for (layer, group), values in rates_by_row(alpha).items():
        values = values.double().cpu()
        quantiles = values.quantile(torch.tensor(QUANTILES, dtype=values.dtype)).tolist()
        records.append(
            {
                "seed": seed,
                "update": update,
                "layer": layer,
                "group": group,
                "mean": values.mean().item(),
                "std": values.std(correction=0).item(),
                "share_negative": (values < 0).double().mean().item(),
                "n": len(values),
                **{f"q{round(100 * q):02d}": v for q, v in zip(QUANTILES, quantiles, strict=True)},
            }
        )
    return pd.DataFrame(records)


def table_of_rates(alpha: Params, update: int, precision: float) -> pd.DataFrame:
    """One row a rate, in the order of the parameters' names and of each tensor's elements: update,
    name, rate. Rounded to multiples of `precision`, which makes a file a third as large."""
    names = sorted(alpha)
    flat = torch.cat([alpha[name].flatten() for name in names]).double().cpu()
    sizes = [alpha[name].numel() for name in names]
    return pd.DataFrame(
        {
            "update": update,
            "name": pd.Categorical.from_codes(np.repeat(range(len(names)), sizes), names),
            "rate": ((flat / precision).round() * precision).float().numpy(),
        }
    )


def rates_long(alpha: Params, seed: int) -> pd.DataFrame:
    """One row a rate: seed, layer, group, rate. For histograms."""
    return pd.concat(
        [
            pd.DataFrame({"seed": seed, "layer": layer, "group": group, "rate": values.numpy()})
            for (layer, group), values in rates_by_row(alpha).items()
        ],
        ignore_index=True,
    )


def table_1(rates: pd.DataFrame) -> pd.DataFrame:
    """Table 1 at the last update of each seed, beside the paper's; one row a group and layer.

    rates: as `summarise_rates` gives. Columns: group, layer; mean, std and share_negative (averages
    over seeds); mean_low and mean_high, share_low and share_high (95 % t intervals over seeds, the
    share's cut off at 0 and 1; NaN with one seed); rates (their number), paper mean, paper std.
    """
    rows = []
    for (group, layer), networks in _last(rates).groupby(["group", "layer"]):
        mean = estimate(networks["mean"]).interval()
        share = estimate(networks["share_negative"]).interval()
        rows.append(
            {
                "group": group,
                "layer": layer,
                "mean": mean.mean,
                "mean_low": mean.low,
                "mean_high": mean.high,
                "std": networks["std"].mean(),
                "share_negative": share.mean,
                "share_low": np.maximum(share.low, 0),
                "share_high": np.minimum(share.high, 1),
                "rates": networks["n"].iloc[0],
            }
        )
    paper = PAPER_TABLE_1.assign(group="weights+bias")
    return _in_order(pd.DataFrame(rows).merge(paper, how="left", on=["group", "layer"]))


def rates_against_start(rates: pd.DataFrame) -> pd.DataFrame:
    """Have the rates moved, and become negative? t-tests over seeds; one row a group and layer.

    rates: as `summarise_rates` gives, from update 0 on, where training had not begun. Every seed is
    compared with its own start. Columns: group, layer, seeds; start and change of the mean rate,
    change_low and change_high (95 %), p_start (two-sided, of a mean rate as at the start), p_zero
    (of a mean rate of zero); share_start, share_change and p_share (of a share of negative rates as
    at the start). NaN with one seed. A share near 0 or 1 is skewed between seeds, and its p-value
    rough. No correction is made for the number of rows. Raises ValueError for a seed without
    update 0.
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
    return _in_order(pd.DataFrame(rows))


def _last(rates: pd.DataFrame) -> pd.DataFrame:
    return rates[rates["update"] == rates.groupby("seed")["update"].transform("max")]


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Weights first, as in the paper, and layers from the image to the classes."""
    return table.sort_values(["group", "layer"], ascending=[False, True], ignore_index=True)


def share_negative(table: pd.DataFrame) -> float:
    """Share of negative rates among all weights and biases of a `table_1`."""
    rows = table[table["group"] == "weights+bias"]
    return (rows["share_negative"] * rows["rates"]).sum() / rows["rates"].sum()
