"""The outer loop: meta-updates, validation, checkpoints (paper, algorithm 1).

A training is a function of its configuration alone. One that stopped goes on from its last
checkpoint and ends with exactly the numbers it would have had: episodes are counted, not drawn
from a running generator, and the checkpoint holds the optimiser's state.
"""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from negmeta_utils import objective, runs
from negmeta_utils.adaptation import METHODS, constrained
from negmeta_utils.checkpoints import (
    State,
    begin,
    find_run,
    fresh_state,
    is_at_its_end,
    keep,
    largest,
    resume,
    save,
)
from negmeta_utils.config import TrainConfig, environment
from negmeta_utils.data.layouts import SPLITS
from negmeta_utils.data.splits import load_split
from negmeta_utils.engine import library
from negmeta_utils.engine.device import memory_named
from negmeta_utils.episodes import Episodes, ImageSet, check_episode_fits, draw_episodes
from negmeta_utils.networks.catalogue import fingerprint
from negmeta_utils.parameters import BEST
from negmeta_utils.rates import summarise_rates, table_of_rates
from negmeta_utils.storage import atomic, files, paths

SNAPSHOTS = 20  # of every single rate, at most, besides that before training


def train(
    config: TrainConfig, run_dir: str | Path, report: Callable[[str], None] = lambda text: None
) -> runs.Run:
    """Train to the end, from the last checkpoint in `run_dir` if there is one. A run that is
    complete with fewer meta-updates is trained on.

    report: called with one line on progress about once a second.
    Raises ValueError for a parameter that does not go with the data and for a directory that
    holds a run of another configuration or is named as a network of one, BlockingIOError for one
    that another process trains in, FloatingPointError where the loss stops being finite, and
    MemoryError. SIGINT and SIGTERM end it after the current meta-update, with a checkpoint, as
    KeyboardInterrupt and SystemExit.
    """
    config, splits = load_splits(config)
    device = torch.device(config.device)
    directory = paths.resolve(run_dir)
    runs.check_no_network(directory)
    memory = memory_named(device, "n_tasks, n_query, n_shot, n_filters or image_size")
    with atomic.sole_user(directory), memory:
        splits = {split: images.to(device) for split, images in splits.items()}
        manifest = new_manifest(config, device, splits)
        found = find_run(directory, manifest)
        if not is_at_its_end(found, config.n_updates):
            network = config.find_network(splits["train"])
            state = fresh_state(config, network, splits["train"], device)
            record_rates(config, state)
            state = resume(directory, state, manifest)
            tasks = partial(_next_episodes, config, state, splits["train"])
            config, note = objective.trusted(config, network, state.params, state.alpha, tasks)
            manifest["environment"]["engine"] = note
            manifest = begin(directory, manifest, found, state)
            if manifest["environment"]["vectors"] not in library.VECTORS:
                report("no AVX2 and FMA here: the last digits, and with them the network, differ")
            with atomic.signals_noted() as signals:
                _run_updates(config, state, splits, directory, manifest, report, signals)
                if signals:  # since the last checkpoint
                    raise stopped(signals[0], state, directory)
            _finish(config, state, splits["test"], directory, manifest)
    return runs.load_run(directory)


def load_splits(config: TrainConfig) -> tuple[TrainConfig, dict[str, ImageSet]]:
    """`config` as resolved, and the images of each split, on the CPU.

    Raises ValueError for a parameter that does not go with one of them.
    """
    splits = {
        split: load_split(config.dataset, split, config.image_size, config.data_dir, config.classes)
        for split in SPLITS
    }
    for split, images in splits.items():
        n_per_class = config.n_shot + config.n_query
        check_episode_fits(images, config.n_way, n_per_class, f"the {split} split")
    return config.resolved(splits["train"]), splits


def _run_updates(
    config: TrainConfig,
    state: State,
    splits: dict[str, ImageSet],
    directory: Path,
    manifest: dict,
    report: Callable[[str], None],
    signals: list[int],
) -> None:
    before, first, started = state.seconds, state.update, time.monotonic()
    reported = started
    while state.update < config.n_updates:
        _meta_update(config, state, splits["train"])
        last = state.update == config.n_updates
        validates = state.update % config.val_every == 0 or last
        keeps = state.update in config.keep_at
        improves = validates and _validate(config, state, splits["val"], directory)
        if keeps:
            keep(state, directory, config.method, str(state.update))
        if validates or keeps:
            record_rates(config, state)
        state.seconds = before + time.monotonic() - started
        signalled = signals[:1]  # looked at once: one may come at any moment
        # With a new best network, too: else a continuation by other digits might not find another,
        # and would end with one that it never came to.
        if state.update % config.checkpoint_every == 0 or improves or last or signalled:
            save(state, directory, manifest)
        if signalled:
            raise stopped(signalled[0], state, directory)
        if time.monotonic() - reported > 1:
            reported = time.monotonic()
            each = (reported - started) / (state.update - first)
            report(_progress(state, config.n_updates, each))
    report(f"{state.update} meta-updates in {state.seconds:.0f} s")


def stopped(number: int, state: State, directory: Path) -> BaseException:
    """What a signal ends a training with, once its checkpoint is written."""
    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    return kind(
        f"{directory}: stopped after meta-update {state.update}, its checkpoint is kept; train "
        "again to go on"
    )


def _meta_update(config: TrainConfig, state: State, images: ImageSet) -> None:
    """One step of the outer loop on `n_tasks` fresh episodes (paper, eqs. 2 and 4)."""
    episodes = _next_episodes(config, state, images)
    gradient = objective.gradient(config, state.network, state.params, state.alpha, episodes)
    for name, value in state.params.items():
        value.grad = gradient.params[name]
        if METHODS[config.method].learns_alpha:
            state.alpha[name].grad = gradient.alpha[name]
    state.optimizer.step()
    # They stay on the device until the next checkpoint: reading them would wait for it.
    add_row(state, gradient.loss, gradient.accuracy, largest(state))


def add_row(
    state: State, loss: torch.Tensor, accuracy: torch.Tensor, largest: torch.Tensor
) -> None:
    """The history's row of a meta-update that is done, of three scalars."""
    state.update += 1
    outer_lrs = [group["lr"] for group in state.optimizer.param_groups]
    state.rows.append(
        {
            "update": state.update,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "largest": largest,
            "val_loss": None,
            "val_accuracy": None,
            "outer_lr": outer_lrs[0],
            "alpha_lr": outer_lrs[-1],  # the outer rate again where no rates are learned
        }
    )


def _next_episodes(config: TrainConfig, state: State, images: ImageSet, ahead: int = 0) -> Episodes:
    """Of the next meta-update, or of one so many further `ahead`."""
    first = (state.update + ahead) * config.n_tasks
    indices = range(first, first + config.n_tasks)
    return draw_episodes(
        images, config.seed, "train", indices, config.n_way, config.n_shot, config.n_query
    )


def _validate(config: TrainConfig, state: State, images: ImageSet, directory: Path) -> bool:
    """Whether the network is the best so far."""
    episodes = validation_episodes(config, state.update)
    alpha = constrained(config.method, state.alpha)
    found = objective.evaluate(config, state.network, state.params, alpha, images, "val", episodes)
    return note_validation(config, state, directory, *found)


def validation_episodes(config: TrainConfig, update: int) -> range:
    """The numbers of a check's episodes. Without `val_fresh` they are the same every time, so that
    the curve moves with the model and not with the draw."""
    check = math.ceil(update / config.val_every) - 1 if config.val_fresh else 0
    return range(check * config.val_episodes, (check + 1) * config.val_episodes)


def note_validation(
    config: TrainConfig, state: State, directory: Path, losses: np.ndarray, accuracy: np.ndarray
) -> bool:
    """What a check's losses and accuracies, one value an episode, change: the history, the outer
    rates, and which network is the best so far; whether that is this one."""
    loss = float(losses.mean())
    state.rows[-1].update(val_loss=loss, val_accuracy=float(accuracy.mean()))
    if state.scheduler is not None:
        state.scheduler.step(loss)
    if not loss < state.best_loss:  # nor where it is no number
        return False
    state.best_loss = loss
    keep(state, directory, config.method, BEST)
    return True


def record_rates(config: TrainConfig, state: State) -> None:
    """Add the inner rates as they are to the tables of a training."""
    learned = constrained(config.method, state.alpha)
    alpha = {name: learned[name].expand(value.shape) for name, value in state.params.items()}
    state.rates.append(summarise_rates(alpha, config.seed, state.update, state.network))
    every = config.val_every * math.ceil(config.n_updates / config.val_every / SNAPSHOTS)
    if state.update % every == 0 or state.update == config.n_updates:
        state.every_rate.append(table_of_rates(alpha, state.update, config.inner_lr / 100))


def _progress(state: State, n_updates: int, seconds_each: float) -> str:
    left = (n_updates - state.update) * seconds_each
    if state.rows:
        accuracy = float(state.rows[-1]["train_accuracy"])
    else:  # they have just gone to the checkpoint
        accuracy = state.history[-1]["train_accuracy"].iloc[-1]
    return (
        f"meta-update {state.update} of {n_updates}, {left / 60:.1f} min left, "
        f"training accuracy {accuracy:.2f}"
    )


def new_manifest(config: TrainConfig, device: torch.device, splits: dict[str, ImageSet]) -> dict:
    """The manifest of a run that begins."""
    own = fingerprint(config.network)
    channels = splits["train"].channels
    return {
        "status": "running",
        "parameters": asdict(config),
        "data": {
            split: {
                "classes": images.n_classes,
                "images": len(images.images),
                "fingerprint": images.fingerprint,
            }
            for split, images in splits.items()
        },
        **({"network": {"sha256": own, "channels": channels}} if own else {}),
        "environment": {
            **environment(device),
            "kernels": objective.kernels(config, splits["train"]),
        },
        "started": atomic.now(),
    }


def _finish(
    config: TrainConfig, state: State, images: ImageSet, directory: Path, manifest: dict
) -> None:
    """Final accuracy on the meta-test classes, the model, and last of all the manifest."""
    started = time.monotonic()
    results = {"seconds_training": round(state.seconds, 1)}
    alpha = constrained(config.method, state.alpha)
    if config.test_episodes:
        loss, accuracy = objective.evaluate(
            config,
            state.network,
            state.params,
            alpha,
            images,
            "final",
            range(config.test_episodes),
        )
        if not np.isfinite(loss).all():
            raise FloatingPointError(
                f"{directory}: the loss of test episode {np.isfinite(loss).argmin()} is not finite "
                f"after meta-update {state.update}; lower outer_lr or inner_lr, in another folder"
            )
        files.write_table(
            directory / "accuracy.parquet", pd.DataFrame({"loss": loss, "accuracy": accuracy})
        )
        results["test_accuracy"] = float(accuracy.mean())
        results["test_episodes"] = config.test_episodes
        results["seconds_testing"] = round(time.monotonic() - started, 1)
    files.write_tensors(
        directory / "model.safetensors", {"params": state.params, "alpha": alpha}, {}
    )
    ended = {"status": "complete", "results": results, "files": runs.file_digests(directory)}
    atomic.write_json(directory / "manifest.json", {**manifest, **ended})
