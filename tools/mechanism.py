"""For maintainers: the interventions of notebook 5 on one network, with their table and figure.
Stopped and run again, it goes on where it left off.

    python tools/mechanism.py figures/paper-28/networks/meta-sgd-0 figures/paper-28/mechanism
"""

import argparse
from pathlib import Path

import pandas as pd

from negmeta_utils.evaluation import shared_test_images
from negmeta_utils.evidence.contrasts import (
    DOWN,
    MARGIN,
    UNDECIDED,
    UP,
    change_grids,
    equivalence,
)
from negmeta_utils.evidence.intervals import over_episodes
from negmeta_utils.evidence.quantities import CHANGES
from negmeta_utils.plots import questions, style
from negmeta_utils.questions.interventions import (
    AS_LEARNED,
    AS_LONG,
    ONE_CLASS,
    WITHOUT_NEGATIVE,
    adaptations,
)
from negmeta_utils.resumable import evaluate_resumably, forget
from negmeta_utils.runs import load_run
from negmeta_utils.shipped import EVAL_SEED
from negmeta_utils.storage.atomic import make_folder
from negmeta_utils.storage.files import read_table, write_table

SHOWN = (
    AS_LEARNED, WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG, "absolute value", "signs shuffled",
    ONE_CLASS,
)  # fmt: skip
OVER = "95 % over episodes, of this network"


def measure(name: str, folder: Path, n_episodes: int, disjoint: bool) -> None:
    run = load_run(name)
    images = shared_test_images([run], None)
    of = {n: way for n, way in adaptations(run, images, EVAL_SEED).items() if n in SHOWN}
    make_folder(folder)
    table = evaluate_resumably(run, images, of, n_episodes, EVAL_SEED, folder, print, disjoint)
    write_table(folder / "interventions.parquet", table)
    forget(folder)


def draw(folder: Path) -> None:
    """Each intervention minus the rates as learned, over episodes: `contrasts.equivalence` as a
    table, 95 % intervals as a figure."""
    table = read_table(folder / "interventions.parquet")
    rows, panels = {}, {}
    for quantity in CHANGES:
        grids = change_grids(table, "variant", quantity)
        base = grids.pop(AS_LEARNED)
        of = {n: equivalence({n: g, "": base}, n, "").head(1) for n, g in grids.items()}
        rows[quantity] = pd.concat(of, names=["rates"]).reset_index("rates")
        wide = [over_episodes(grid - base).interval()[1:] for grid in grids.values()]
        panel = rows[quantity].rename(columns={"rates": "condition"})
        panels[f"{quantity}, minus as learned"] = panel.assign(
            low=[low for low, _ in wide],
            high=[high for _, high in wide],
            verdict=[UP if low > 0 else DOWN if high < 0 else UNDECIDED for low, high in wide],
        )
    found = pd.concat(rows, names=["quantity"]).reset_index("quantity")
    found.to_csv(folder / "equivalence.csv", index=False)
    style.set_style()
    style.save(questions.conditions(panels, OVER, MARGIN), folder, "interventions")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", help="a folder of notebook 1, or a shipped name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--disjoint", action="store_true", help="pairs without a common class")
    given = parser.parse_args()
    measure(given.run, given.folder, given.episodes, given.disjoint)
    draw(given.folder)
