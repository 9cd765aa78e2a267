"""Learned inner-loop rates as tables: what `evidence.learned_rates` and figure 6 start from."""

import numpy as np
import pandas as pd
import torch

from negmeta_utils.adaptation import METHODS
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.networks.network import Network, Params
from negmeta_utils.runs import Run, check_in_one_place, network_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def check_learned_rates(run: Run) -> None:
    """Raise ValueError for a run whose method learns no rates."""
    method = run.parameters["method"]
    if not METHODS[method].learns_alpha:
        raise ValueError(
            f"{run.directory}: a run of {method}, which learns no rates; name one of meta-sgd"
        )


def rates_by_row(alpha: Params, network: Network = CONV4) -> dict[tuple[str, str], torch.Tensor]:
    """All rates of each row of table 1, flat, keyed by (layer, group), layers in their order.

    The paper's table has one row a layer and does not say whether biases are in it; here they are,
    and batch normalisation's rates stand beside them as a group of their own.
    """
    rows = network.rows(list(alpha))
    return {row: torch.cat([alpha[n].flatten() for n in names]) for row, names in rows.items()}


def summarise_rates(
    alpha: Params, seed: int, update: int, network: Network = CONV4
) -> pd.DataFrame:
    """One row a layer and group: seed, update, layer, group, mean, std (of the population of
    rates), share_negative, n, and quantiles q05 to q95."""
    records = []
    for (layer, group), values in rates_by_row(alpha, network).items():
        values = values.double().cpu()
        quantiles = values.quantile(values.new_tensor(QUANTILES)).tolist()
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


def rates_that_move(run: Run) -> pd.DataFrame:
    """`summarise_rates` of a network as it is, without the rates that stay where they started:
    those of `Network.still`."""
    network = network_of(run)
    alpha = {name: rate for name, rate in run.alpha.items() if name not in network.still}
    table = summarise_rates(alpha, run.parameters["seed"], run.update, network)
    return table.assign(network=run.network)


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


def rates_along_training(trained: list[Run]) -> pd.DataFrame:
    """The tables of rates of several runs, one below the other. Raises ValueError for a run whose
    method learns none, and for two trainings of one seed, which the tables could not tell apart."""
    for run in trained:
        check_learned_rates(run)
    check_in_one_place((f"seed {run.parameters['seed']}", run.directory) for run in trained)
    return pd.concat([run.rates() for run in trained], ignore_index=True)


def rates_of_runs(trained: list[Run]) -> pd.DataFrame:
    """`rates_long` of several runs, one below the other."""
    tables = [rates_long(run.alpha, run.parameters["seed"], network_of(run)) for run in trained]
    return pd.concat(tables, ignore_index=True)


def rates_long(alpha: Params, seed: int, network: Network = CONV4) -> pd.DataFrame:
    """One row a rate: seed, layer, group, rate. For histograms."""
    return pd.concat(
        [
            pd.DataFrame({"seed": seed, "layer": layer, "group": group, "rate": values.numpy()})
            for (layer, group), values in rates_by_row(alpha, network).items()
        ],
        ignore_index=True,
    )
