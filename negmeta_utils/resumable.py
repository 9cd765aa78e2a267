"""Evaluations of several runs, kept on disk as they go, so that one that was stopped goes on."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from negmeta_utils import runs, storage
from negmeta_utils.episodes import ImageSet, episodes_at_once
from negmeta_utils.evaluation import check_comparable, evaluate_features, shared_test_images
from negmeta_utils.runs import Run, shipped_features

FEW_EPISODES = 60  # a look
SECONDS_BETWEEN_WRITES = 10


def features_table(
    trained: list[Run],
    n_episodes: int | None,
    eval_seed: int,
    out_dir: str | None,
    data_dir: str | None,
    device: torch.device,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[pd.DataFrame, Path]:
    """The tables of `evaluation.evaluate_features` of several runs, one below the other; and the
    folder of `runs.output_folder`, made once there is nothing left to refuse.

    What comes with a shipped run is taken as it is, and needs no images; all else is evaluated, by
    `evaluate_resumably` in that folder. n_episodes: of each run; None is as many as come with all
    of them, or few. Raises ValueError as `evaluation.shared_test_images`.
    """
    check_comparable(trained)
    known = [shipped_features(run, eval_seed) for run in trained]
    lengths = [0 if table is None else len(table) for table in known]
    n_episodes = n_episodes or min(lengths) or FEW_EPISODES
    if min(lengths) < n_episodes:
        images = shared_test_images(trained, data_dir).to(device)
    folder = runs.output_folder(out_dir)
    tables = []
    for run, table, length in zip(trained, known, lengths, strict=True):
        if length >= n_episodes:
            report(f"{run.name}: its {length} episodes come with it")
            tables.append(table.head(n_episodes))
        else:
            tables.append(evaluate_resumably(run, images, n_episodes, eval_seed, folder, report))
    return pd.concat(tables, ignore_index=True), folder


def evaluate_resumably(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    eval_seed: int,
    folder: Path,
    report: Callable[[str], None] = lambda text: None,
    deadline: float = float("inf"),
) -> pd.DataFrame:
    """The table of `evaluation.evaluate_features`, kept in `folder` as far as it is known and begun
    there where an earlier call left off; shorter than `n_episodes` if `deadline`, a time of
    `time.monotonic`, comes before its end."""
    path = _kept(run, images, eval_seed, folder)
    table = _read_kept(path).head(n_episodes) if path.exists() else pd.DataFrame()
    batch = episodes_at_once(images, run.parameters["n_way"], run.parameters["n_query"])
    written = time.monotonic()
    try:
        while len(table) < n_episodes and time.monotonic() < deadline:
            until = min(len(table) + batch, n_episodes)
            more = evaluate_features(run, images, until, eval_seed, batch, report, len(table))
            table = pd.concat([table, more], ignore_index=True)
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                storage.write_table(path, table)
                written = time.monotonic()
    finally:
        if len(table):
            storage.write_table(path, table)
    return table


def _read_kept(path: Path) -> pd.DataFrame:
    table = storage.read_table(path)
    if "episode" not in table or table["episode"].tolist() != list(range(len(table))):
        raise ValueError(f"{path}: its episodes are not 0, 1, 2, ...; delete it and start again")
    return table


def forget(folder: Path) -> None:
    """Delete what `evaluate_resumably` keeps in `folder`, whose whole table is written now."""
    for path in folder.glob(".kept-*.parquet"):
        path.unlink()


def _kept(run: Run, images: ImageSet, eval_seed: int, folder: Path) -> Path:
    """One file for one model on these images and episodes."""
    digest = hashlib.sha256(run.file.read_bytes())
    shape = [run.parameters[name] for name in ("n_way", "n_shot", "n_query", "inner_steps")]
    digest.update(repr((images.fingerprint, eval_seed, shape)).encode())
    name = f"{run.parameters['method']}-{run.parameters['seed']}-{digest.hexdigest()[:12]}"
    return folder / f".kept-{name}.parquet"
