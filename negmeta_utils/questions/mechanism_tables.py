"""The tables that notebook 5 shows: measured on runs and written, or read where an earlier
execution wrote them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from negmeta_utils.episodes import ImageSet
from negmeta_utils.evaluation import shared_test_images
from negmeta_utils.evidence.learned_rates import table_1
from negmeta_utils.evidence.quantities import FEATURES, MAML, META_SGD
from negmeta_utils.parameters import check_folders
from negmeta_utils.questions.geometry import MEASURES, measure_geometry
from negmeta_utils.questions.interventions import (
    AS_LEARNED,
    AS_LONG,
    WITHOUT_NEGATIVE,
    evaluate_interventions,
    evaluate_parts,
)
from negmeta_utils.questions.trainings import without_collapsed
from negmeta_utils.resumable import features_of_run, forget
from negmeta_utils.runs import (
    Run,
    check_one_network_each,
    directory_of,
    load_runs,
    output_folder,
    settings,
    split_name,
)
from negmeta_utils.storage.files import read_table, write_table

POSITIVE = "meta-sgd-positive"
WRITTEN = "interventions.parquet"  # the one of `COLUMNS` that is always there
SHOWN = "figures/decide/mechanism"  # a folder of such tables that comes with the package
SETTINGS = (
    "method", "seed", "dataset", "image_size", "n_filters", "n_updates", "n_way", "n_shot",
    "n_query",
)  # fmt: skip
OF_FEATURES = {*FEATURES, "network", "shared_classes"}
# Columns that tables which are read must have.
COLUMNS = {
    "interventions": OF_FEATURES | {"variant"},
    "positive": OF_FEATURES,
    "maml_parts": OF_FEATURES | {"variant"},
    "geometry": {"method", "seed", "layer", "task", *MEASURES},
}


class Tables(NamedTuple):
    """What notebook 5 shows; None is what was not measured, or is not known of tables read."""

    networks: pd.DataFrame  # measured: settings of each; read: how many, and their pairs of tasks
    left_out: list[str]  # what `without_collapsed` says
    rates: pd.DataFrame | None  # of `learned_rates.table_1`
    interventions: pd.DataFrame  # of `evaluate_interventions`
    positive: pd.DataFrame | None  # of `with_positive`
    maml_parts: pd.DataFrame | None  # of `evaluate_parts`
    geometry: pd.DataFrame | None  # of `measure_geometry`


def folder_of_tables(runs: list[str]) -> Path | None:
    """The folder with tables of notebook 5 that its parameter `runs` names; None where it names
    runs. Raises ValueError for what is no list or an empty one, and for tables beside anything
    else; FileNotFoundError for a folder with neither tables nor a run."""
    check_folders("runs", runs)
    tables = [name for name in runs if (directory_of(name) / WRITTEN).is_file()]
    if tables and len(runs) > 1:
        others = ", ".join(name for name in runs if name != tables[0])
        raise ValueError(
            f"runs: {tables[0]} holds tables of notebook 5, which are shown by themselves; leave "
            f"out {others or 'the second one'}, or name runs alone"
        )
    if tables:
        return directory_of(tables[0])
    for name in runs:
        folder = directory_of(split_name(name)[0])
        if folder.is_dir() and not (folder / "manifest.json").exists():
            raise FileNotFoundError(
                f"{folder}: neither a run nor tables of notebook 5 ({WRITTEN}) there; name runs of "
                f"notebook 1, or a folder with such tables, as {SHOWN}"
            )
    return None


def read_tables(folder: Path) -> Tables:
    """The tables that notebook 5 wrote to `folder`. Raises ValueError as `files.read_table`, and
    for one that lacks `COLUMNS` or the primary contrast's interventions."""
    variants = _read(folder / WRITTEN)
    positive, maml_parts, geometry = (
        _read(path) if (path := folder / f"{name}.parquet").is_file() else None
        for name in ("positive", "maml_parts", "geometry")
    )
    names = AS_LEARNED, WITHOUT_NEGATIVE, WITHOUT_NEGATIVE + AS_LONG
    if missing := [name for name in names if name not in set(variants["variant"])]:
        raise ValueError(
            f"{folder / WRITTEN}: no rows of {missing[0]!r}; execute notebook 5 on its runs again"
        )
    every = pd.concat([variants, positive, maml_parts])  # without those that are None
    each = every.groupby(["method", "network"], sort=False)
    networks = pd.DataFrame(
        {
            "n_seeds": each["seed"].nunique(),
            "n_episodes": each["episode"].nunique(),
            "shared_classes": each["shared_classes"].mean(),
        }
    )
    return Tables(networks.reset_index(), [], None, variants, positive, maml_parts, geometry)


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path)
    if missing := sorted(COLUMNS[path.stem] - set(table)):
        raise ValueError(
            f"{path}: no column {missing[0]!r}; name a folder that notebook 5 wrote, as {SHOWN}"
        )
    return table


def measure_tables(
    runs: list[str],
    positive_runs: list[str],
    maml_runs: list[str],
    out_dir: str | None,
    data_dir: str | None,
    device: torch.device,
    report: Callable[[str], None] = lambda text: None,
    *,
    n_episodes: int,
    n_geometry: int,
    eval_seed: int = 0,
    disjoint: bool = False,
) -> tuple[Tables, Path]:
    """The tables of runs, by the parameters of notebook 5; and the folder of
    `runs.output_folder`, made once there is nothing left to refuse, where they are written.

    A call that was stopped goes on. Raises ValueError as `load_sides` and `shared_test_images`.
    """
    (learned, positive, maml), left_out = load_sides(runs, positive_runs, maml_runs)
    everyone = learned + positive + maml
    rates = table_1(pd.concat([run.rates() for run in learned]))
    images = shared_test_images(everyone, data_dir).to(device)
    folder = output_folder(out_dir)
    pairs: dict[str, Any] = {
        "n_episodes": n_episodes, "folder": folder, "report": report, "eval_seed": eval_seed,
        "disjoint": disjoint,
    }  # fmt: skip
    variants = evaluate_interventions(learned, images, **pairs)
    write_table(folder / WRITTEN, variants)
    trained = with_positive(variants, positive, images, **pairs) if positive else None
    if trained is None:  # what was written there for other runs would be read beside these
        (folder / "positive.parquet").unlink(missing_ok=True)
    else:
        write_table(folder / "positive.parquet", trained)
    of_maml = evaluate_parts(maml, images, **pairs)
    write_table(folder / "maml_parts.parquet", of_maml)
    forget(folder)
    geometry = measure_geometry(learned + maml, images, n_geometry, eval_seed, disjoint)
    write_table(folder / "geometry.parquet", geometry)
    networks = settings(everyone, *SETTINGS)
    return Tables(networks, left_out, rates, variants, trained, of_maml, geometry), folder


def load_sides(
    runs: list[str], positive_runs: list[str], maml_runs: list[str]
) -> tuple[list[list[Run]], list[str]]:
    """The runs of the notebook's parameters of these names, and what `without_collapsed` says of
    those that it leaves out. Raises ValueError for what is no list, for an empty one but of
    positive rates, for runs of another method, and as `runs.load_runs`."""
    learned = _runs_of(META_SGD, "runs", runs)
    positive = _runs_of(POSITIVE, "positive_runs", positive_runs) if positive_runs != [] else []
    maml = _runs_of(MAML, "maml_runs", maml_runs)
    check_one_network_each(learned + positive + maml)
    sides = [without_collapsed(side) for side in (learned, positive, maml)]
    return [side for side, _ in sides], [said for _, each in sides for said in each]


def _runs_of(method: str, parameter: str, names: list[str]) -> list[Run]:
    found = load_runs(names, True, parameter)
    for run in found:
        if run.parameters["method"] != method:
            raise ValueError(
                f"{parameter}: {run.name} is a run of {run.parameters['method']}, not of {method}"
            )
    return found


def with_positive(
    variants: pd.DataFrame,
    positive: list[Run],
    images: ImageSet,
    **pairs: Any,
) -> pd.DataFrame:
    """The features table of the runs of `variants`, their rates as learned, and below it that of
    runs of meta-sgd-positive. pairs: the same as for `variants`, by the names of
    `resumable.features_of_run`."""
    learned = variants[variants["variant"] == AS_LEARNED].drop(columns="variant")
    others = [features_of_run(run, images, **pairs) for run in positive]
    return pd.concat([learned, *others], ignore_index=True)
