"""Long evaluations: kept on disk as they go, so that one that was stopped goes on."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from negmeta_utils import runs
from negmeta_utils.episodes import ImageSet, episodes_at_once
from negmeta_utils.features import evaluate_features
from negmeta_utils.runs import Run

SECONDS_BETWEEN_WRITES = 10


def evaluate_resumably(
    run: Run,
    images: ImageSet,
    n_episodes: int,
    eval_seed: int,
    folder: Path,
    report: Callable[[str], None] = lambda text: None,
    deadline: float = float("inf"),
) -> pd.DataFrame:
    """The table of `features.evaluate_features`, kept in `folder` as far as it is known and begun
    there where an earlier call left off; shorter than `n_episodes` if `deadline`, a time of
    `time.monotonic`, comes before its end."""
    path = _kept(run, images, eval_seed, folder)
    table = runs.read_table(path).head(n_episodes) if path.exists() else pd.DataFrame()
    batch = episodes_at_once(images, run.parameters["n_way"], run.parameters["n_query"])
    written = time.monotonic()
    try:
        while len(table) < n_episodes and time.monotonic() < deadline:
            until = min(len(table) + batch, n_episodes)
            more = evaluate_features(run, images, until, eval_seed, batch, report, len(table))
            table = pd.concat([table, more], ignore_index=True)
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                runs.write_table(path, table)
                written = time.monotonic()
    finally:
        if len(table):
            runs.write_table(path, table)
    return table


def forget(folder: Path) -> None:
    """Delete what `evaluate_resumably` keeps in `folder`, whose whole table is written now."""
    for path in folder.glob(".kept-*.parquet"):
        path.unlink()


def _kept(run: Run, images: ImageSet, eval_seed: int, folder: Path) -> Path:
    """One file for one model on these images and episodes."""
    digest = hashlib.sha256((run.directory / "model.safetensors").read_bytes())
    shape = [run.parameters[name] for name in ("n_way", "n_shot", "n_query", "inner_steps")]
    digest.update(repr((images.fingerprint, eval_seed, shape)).encode())
    name = f"{run.parameters['method']}-{run.parameters['seed']}-{digest.hexdigest()[:12]}"
    return folder / f".kept-{name}.parquet"
