"""For maintainers: what it changes that rates start independently of the weights. The networks of
the study `start` minus those of `decide` of the same seeds, in pairs, as two tables.

    python tools/start.py figures/start
"""

import sys
from pathlib import Path

import pandas as pd

from negmeta_utils.evidence.collapsed import collapsed, rates_without, without
from negmeta_utils.evidence.contrasts import equivalence
from negmeta_utils.evidence.intervals import estimate
from negmeta_utils.evidence.learned_rates import last_mean_rates
from negmeta_utils.evidence.quantities import CHANGES, META_SGD, grids
from negmeta_utils.storage.files import read_table
from negmeta_utils.storage.paths import ROOT

DECIDE = ROOT / "figures" / "decide"


def changes_apart(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Features tables in; `contrasts.equivalence` of each change, with its name first."""
    new, old = (grids(without(of, collapsed(of))) for of in (new, old.query("method == @META_SGD")))
    rows = {
        change: equivalence(
            {"new": new[META_SGD, change], "old": old[META_SGD, change]}, "new", "old"
        )
        for change in CHANGES
    }
    return pd.concat(rows, names=["quantity"]).reset_index("quantity")


def means_apart(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Rates tables in; of each layer's mean at the end: new, old, and new minus old over the seeds
    that both have, with a 95 % interval (Student's t)."""
    new, old = last_mean_rates(new), last_mean_rates(old)
    shared = new.index.intersection(old.index)
    new, old = new.loc[shared], old.loc[shared]
    rows = [
        (layer, new[layer].mean(), old[layer].mean(), *estimate(new[layer] - old[layer]).interval())
        for layer in new.columns
    ]
    return pd.DataFrame(rows, columns=["layer", "new", "old", "minus", "low", "high"])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    features = [read_table(of / "features" / "features.parquet") for of in (folder, DECIDE)]
    changes_apart(*features).to_csv(folder / "changes_apart.csv", index=False)
    rates = [read_table(of / "alpha" / "rates.parquet") for of in (folder, DECIDE)]
    means = means_apart(
        *(rates_without(r, collapsed(f)) for r, f in zip(rates, features, strict=True))
    )
    means.to_csv(folder / "means_apart.csv", index=False, float_format="%.6f")
