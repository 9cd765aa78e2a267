"""For maintainers: does length change what adapting does to features? The networks of the study
`length` at 60,000 meta-updates minus the same networks at 20,000, as a table and as a figure.
Meta-SGD's at 20,000 are those of `decide`; MAML's are in `features-20000`, once they are there.

    python tools/length.py figures/length
"""

import sys
from itertools import product
from pathlib import Path

import pandas as pd

from negmeta_utils.evidence.collapsed import collapsed, without
from negmeta_utils.evidence.contrasts import contrasts
from negmeta_utils.evidence.intervals import over_episodes
from negmeta_utils.evidence.quantities import CHANGES, MAML, META_SGD, grids
from negmeta_utils.plots import questions, style
from negmeta_utils.storage.files import read_table
from negmeta_utils.storage.paths import ROOT

SHORT = ROOT / "figures" / "decide" / "features" / "features.parquet"
UPDATES = "20,000", "60,000"
OVER = "95 % over episodes, of each network"


def both_points(short: pd.DataFrame, long: pd.DataFrame) -> dict[tuple[str, str], dict]:
    """Each change of each method of `long` as a grid [seeds, episodes] of points, before and after,
    of the networks of `long`, which `short` must have; without those that collapsed."""
    before, after = grids(short), grids(without(long, collapsed(long)))
    keys = [key for key in product((MAML, META_SGD), CHANGES) if key in after and key in before]
    of = {key: (before[key].loc[after[key].index], after[key]) for key in keys}
    return {key: dict(zip(UPDATES, pair, strict=True)) for key, pair in of.items()}


def measure(points: dict[tuple[str, str], dict]) -> pd.DataFrame:
    """The columns of `contrasts.contrasts`, whose condition is the number of meta-updates."""
    tables = {key: contrasts(of, base=UPDATES[0]) for key, of in points.items()}
    return pd.concat(tables, names=["method", "quantity"]).reset_index(["method", "quantity"])


def lines(points: dict[tuple[str, str], dict]) -> dict[str, pd.DataFrame]:
    """For `questions.over_steps`: a line a network, with 95 % intervals over episodes."""
    panels = {}
    for (method, quantity), of in points.items():
        rows = [
            (f"seed {seed}", updates, *over_episodes(grid.loc[[seed]]).interval())
            for updates, grid in of.items()
            for seed in grid.index
        ]
        columns = ["line", "x", "points", "low", "high"]
        panels[f"{style.LABELS[method]}: {quantity}"] = pd.DataFrame(rows, columns=columns)
    return panels


def read(folder: Path) -> dict[tuple[str, str], dict]:
    """`both_points` of the published tables; `folder` has those of `length`."""
    short = read_table(SHORT).query("method == @META_SGD")
    if (own := folder / "features-20000" / "features.parquet").exists():
        short = pd.concat([short, read_table(own)], ignore_index=True)
    return both_points(short, read_table(folder / "features" / "features.parquet"))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = read(folder)
    measure(found).to_csv(folder / "against-20000.csv", index=False)
    style.set_style()
    style.save(questions.over_steps(lines(found), "meta-updates", OVER), folder, "against-20000")
