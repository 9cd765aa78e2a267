"""Evaluations of several runs, kept on disk as they go, so that one that was stopped goes on."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import runs
from negmeta_utils.data.layouts import SPLITS
from negmeta_utils.engine.engines import ENGINES
from negmeta_utils.episodes import ImageSet, episodes_at_once
from negmeta_utils.evaluation import (
    FEW_EPISODES,
    Adaptation,
    as_learned,
    check_comparable,
    evaluate_adaptations,
    shared_test_images,
)
from negmeta_utils.parameters import check_value
from negmeta_utils.runs import Run
from negmeta_utils.shipped import shipped_features
from negmeta_utils.storage import files

SECONDS_BETWEEN_WRITES = 10


def features_table(
    trained: list[Run],
    n_episodes: int | None,
    eval_seed: int,
    out_dir: str | None,
    data_dir: str | None,
    device: torch.device,
    report: Callable[[str], None] = lambda text: None,
    *,
    disjoint: bool = False,
    eval_split: str = "test",
    engine: str = "auto",
) -> tuple[pd.DataFrame, Path]:
    """The tables of `evaluation.evaluate_features` of several runs, one below the other; and the
    folder of `runs.output_folder`, made once there is nothing left to refuse.

    What comes with a shipped run is taken as it is, and needs no images; all else is evaluated, by
    `features_of_run` in that folder. n_episodes: of each run; None is as many as come with all
    of them, or few. eval_split: whose classes the tasks are of; the others as for
    `evaluate_features`. Raises ValueError as it and as `evaluation.shared_test_images`.
    """
    for name, value, among in (("eval_split", eval_split, SPLITS), ("engine", engine, ENGINES)):
        if value not in among:
            raise ValueError(f"{name}={value!r}: not one of {', '.join(among)}")
    check_value("n_episodes", n_episodes, int | None)
    check_comparable(trained)
    as_shipped = not disjoint and eval_split == "test" and engine != "reference"
    known = [shipped_features(run, eval_seed) if as_shipped else None for run in trained]
    lengths = [0 if table is None else len(table) for table in known]
    n_episodes = n_episodes or min(lengths) or FEW_EPISODES
    if min(lengths) < n_episodes:
        images = shared_test_images(trained, data_dir, eval_split).to(device)
    folder = runs.output_folder(out_dir)
    tables = []
    for run, table in zip(trained, known, strict=True):
        if table is not None and len(table) >= n_episodes:
            report(f"{run.name}: its {len(table)} episodes come with it")
            tables.append(table.head(n_episodes))
        else:
            tables.append(
                features_of_run(
                    run, images, n_episodes, eval_seed, folder, report,
                    disjoint=disjoint, engine=engine,
                )
            )  # fmt: skip
    return pd.concat(tables, ignore_index=True), folder


def features_of_run(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    eval_seed: int,
    folder: Path,
    report: Callable[[str], None] = lambda text: None,
    disjoint: bool = False,
    engine: str = "auto",
) -> pd.DataFrame:
    """The table of `evaluation.evaluate_features`, by `evaluate_resumably`."""
    own = as_learned(run, engine)
    table = evaluate_resumably(
        run, images, own, n_episodes, eval_seed, folder, report, disjoint, engine
    )
    return table.drop(columns="variant")


def evaluate_resumably(
    run: Run,
    images: ImageSet,
    adaptations: dict[str, Adaptation],
    n_episodes: int,
    eval_seed: int,
    folder: Path,
    report: Callable[[str], None] = lambda text: None,
    disjoint: bool = False,
    engine: str = "auto",
) -> pd.DataFrame:
    """The table of `evaluation.evaluate_adaptations`, kept in `folder` as far as it is known and
    begun there where an earlier call left off. Ways to adapt are known by their names."""
    how = (tuple(adaptations), eval_seed, disjoint, engine == "reference")
    path = _kept(run, images, how, folder)
    table = _read_kept(path, len(adaptations)) if path.exists() else pd.DataFrame({"episode": []})
    table = table[table["episode"] < n_episodes]
    done = table["episode"].nunique()
    batch = episodes_at_once(images, run.parameters["n_way"], run.parameters["n_query"])
    tables, written = [table] if done else [], time.monotonic()

    def write() -> pd.DataFrame:
        tables[:] = [pd.concat(tables, ignore_index=True)]
        files.write_table(path, tables[0])
        return tables[0]

    try:
        while done < n_episodes:
            until = min(done + batch, n_episodes)
            settings = {"first": done, "disjoint": disjoint, "engine": engine}
            tables.append(
                evaluate_adaptations(run, images, adaptations, until, eval_seed, **settings)
            )
            done = until
            report(f"{run.name}: {done} of {n_episodes} episodes")
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                write()
                written = time.monotonic()
    finally:
        if tables:
            table = write()
    return table


def _read_kept(path: Path, n_rows: int) -> pd.DataFrame:
    """Raises ValueError unless it has so many rows of each of the episodes 0, 1, 2, ..."""
    table = files.read_table(path)
    rows = table["episode"].value_counts() if "episode" in table else pd.Series([0])
    if set(rows) != {n_rows} or set(rows.index) != set(range(len(rows))):
        raise ValueError(f"{path}: its episodes are not 0, 1, 2, ...; delete it and start again")
    return table


def forget(folder: Path) -> None:
    """Delete what `evaluate_resumably` keeps in `folder`, whose whole table is written now."""
    for path in folder.glob(".kept-*.parquet"):
        path.unlink()


def _kept(run: Run, images: ImageSet, how: tuple, folder: Path) -> Path:
    """One file for one network of a run on these images, with pairs drawn and computed in this
    way; two networks of a run may be alike, as the best one and that of its meta-update."""
    digest = hashlib.sha256(run.file.read_bytes())
    shape = [run.parameters[name] for name in ("n_way", "n_shot", "n_query", "inner_steps")]
    digest.update(repr((run.network, images.fingerprint, how, shape)).encode())
    name = f"{run.parameters['method']}-{run.parameters['seed']}-{digest.hexdigest()[:12]}"
    return folder / f".kept-{name}.parquet"
