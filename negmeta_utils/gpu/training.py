"""Several trainings side by side on one GPU, in lockstep.

One training leaves a GPU idle: its kernels are short. Here a kernel works on the tasks of all
networks at once, and a meta-update is one CUDA graph. Each training is what `training.train` makes
of its configuration, but for the last digits; its directory is one that `train` can go on from, on
any device.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch

from negmeta_utils.adaptation import METHODS
from negmeta_utils.checkpoints import State, begin, find_run, fresh_state, keep, resume, save
from negmeta_utils.config import TrainConfig
from negmeta_utils.engine.device import exact_products, memory_named
from negmeta_utils.episodes import ImageSet
from negmeta_utils.gpu.comparison import fault
from negmeta_utils.gpu.drawing import drawn, stretches_of
from negmeta_utils.gpu.group import Group, captured, load_rows, validate
from negmeta_utils.gpu.vectors import Layout
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.storage import atomic
from negmeta_utils.training import (
    add_row,
    new_manifest,
    note_validation,
    record_rates,
    stopped,
)

# What the trainings of a group have in common: the shapes of all that is computed.
ALIKE = (
    "dataset", "classes", "n_way", "n_shot", "n_query", "image_size", "n_filters", "n_tasks",
    "inner_steps", "val_every", "val_episodes", "n_updates",
)  # fmt: skip
SAVED_EVERY = 60  # seconds


def train_together(
    configs: list[TrainConfig],
    directories: list[Path],
    splits: dict[str, ImageSet],
    report: Callable[[str], None] = lambda text: None,
    seconds: float = float("inf"),
    device: str = "cuda",
) -> str | None:
    """Train to the last meta-update, or to the first halt after so many `seconds`. Where the
    kernels cannot be used on this device, nothing is trained; returns why, in one line.

    Each directory then holds a checkpoint of its training, from which `training.train` goes on: of
    one at its last meta-update, to the final accuracy on the test classes. splits: as
    `training.load_splits` gives them. Raises ValueError for configurations that cannot be trained
    side by side, and what `training.train` does; signals end it at its next halt.
    """
    _check_alike(configs)
    lower = "image_size, n_filters or the number of networks"
    with ExitStack() as held:
        held.enter_context(memory_named(torch.device(device), lower))
        held.enter_context(exact_products())
        for directory in directories:
            held.enter_context(atomic.sole_user(directory))
        return _train(configs, directories, splits, report, seconds, device)


def _train(
    configs: list[TrainConfig],
    directories: list[Path],
    splits: dict[str, ImageSet],
    report: Callable[[str], None],
    seconds: float,
    device: str,
) -> str | None:
    states, begun = _resumed(configs, directories, splits, torch.device(device))
    stretches = stretches_of(configs, states[0].update)
    if not stretches:
        return None
    group = _group(configs, states, splits["train"], device)
    said = fault(configs, states, group, splits["train"])
    manifests = _begin(directories, begun, states, device, said)
    if said:
        return said
    validation = channels_last(splits["val"], device)
    update_all = captured(group)
    started = saved = time.monotonic()
    spent = [state.seconds for state in states]
    improves = False
    with ThreadPoolExecutor(1) as pool, atomic.signals_noted() as signals:
        rows = drawn(pool, configs, splits, stretches)
        for first, last in stretches:
            load_rows(group, next(rows))
            for _ in range(last - first):
                update_all()
            # While the device computes: what the stretch before has left to write.
            old = time.monotonic() - saved > SAVED_EVERY
            due = first > stretches[0][0] and (old or improves)
            _write(configs, states, directories, manifests, due)
            if due:
                saved, improves = time.monotonic(), False
            _fetch(group, states, last - first)
            if last % configs[0].val_every == 0 or last == configs[0].n_updates:
                found = validate(group, validation, next(rows))
                improves = any(
                    [
                        note_validation(config, state, directory, *of_one)
                        for config, state, directory, of_one in zip(
                            configs, states, directories, found, strict=True
                        )
                    ]
                )
                group.lr.copy_(_rates(states).to(device))
            for config, state, directory, before in zip(
                configs, states, directories, spent, strict=True
            ):
                if last in config.keep_at:
                    keep(state, directory, config.method, str(last))
                state.seconds = before + time.monotonic() - started
            report(_progress(states, time.monotonic() - started, stretches[0][0]))
            if signals or time.monotonic() - started > seconds:
                break
        _write(configs, states, directories, manifests, True)
        pool.shutdown(cancel_futures=True)
        if signals:
            raise stopped(signals[0], states[0], directories[0].parent)
    return None


def _check_alike(configs: list[TrainConfig]) -> None:
    for name in ALIKE:
        values = {getattr(config, name) for config in configs}
        if len(values) > 1:
            raise ValueError(f"{name}={sorted(map(str, values))}: must be one to train together")
    for config in configs:
        method = METHODS[config.method]
        if config.network != "conv4" or method.first_order or method.adapts != "all":
            raise ValueError(
                f"{config.method} with network={config.network!r}: conv4, maml, meta-sgd and "
                "meta-sgd-positive can be trained together; use `train`"
            )


def _resumed(configs, directories, splits, device) -> tuple[list[State], list[tuple]]:
    """The trainings as far as they have come; of each, a new manifest and the one found."""
    states, begun = [], []
    for config, directory in zip(configs, directories, strict=True):
        manifest = new_manifest(config, device, splits)
        begun.append((manifest, find_run(directory, manifest)))
        state = fresh_state(config, CONV4, splits["train"], torch.device("cpu"))
        states.append(resume(directory, state, manifest))
    if len({state.update for state in states}) > 1:
        raise ValueError("trainings that go on together must be at the same meta-update")
    return states, begun


def _begin(directories, begun, states: list[State], device: str, said: str | None) -> list[dict]:
    """The manifests, as written. begun: of `_resumed`; said: why the kernels cannot be used, if
    they cannot."""
    engine = {
        "engine": f"adjoint, compared with the reference on {device}",
        "kernels": "triton",
        "trained_together": len(directories),
    }
    if said:
        engine = {"engine": f"not trained together on {device}: {said}", "kernels": "none"}
    manifests = []
    for directory, (manifest, found), state in zip(directories, begun, states, strict=True):
        manifest["environment"] |= engine
        manifests.append(begin(directory, manifest, found, state))
    return manifests


def _group(configs: list[TrainConfig], states: list[State], images: ImageSet, device: str) -> Group:
    config, n = configs[0], len(configs)
    layout = Layout(images.channels, images.image_size, config.n_way, config.n_filters)

    def stacked(of: Callable[[State], tuple[dict, dict]]) -> torch.Tensor:
        pairs = [of(state) for state in states]
        both = [torch.stack([layout.pack(pair[i]) for pair in pairs]) for i in (0, 1)]
        return torch.stack(both).to(device)

    ways = torch.arange(config.n_way, device=device)
    tasks = n * config.n_tasks
    stretch = config.val_every

    def rows(each: int) -> torch.Tensor:
        shape = stretch, tasks, config.n_way * each
        return torch.zeros(shape, dtype=torch.int32, device=device)

    return Group(
        layout=layout,
        images=channels_last(images, device),
        labels=(ways.repeat_interleave(config.n_shot), ways.repeat_interleave(config.n_query)),
        values=stacked(lambda state: (state.params, _full(state.alpha, state.params))),
        mean=stacked(lambda state: _moments(state, "exp_avg")),
        square=stacked(lambda state: _moments(state, "exp_avg_sq")),
        lr=_rates(states).to(device),
        positive=torch.tensor([[METHODS[c.method].positive] for c in configs], device=device),
        step=torch.tensor(float(states[0].update), dtype=torch.float64, device=device),
        row=torch.zeros(1, dtype=torch.int64, device=device),
        support=rows(config.n_shot),
        query=rows(config.n_query),
        history=torch.zeros(stretch, 3, n, device=device),
        inner_steps=config.inner_steps,
        n_shot=config.n_shot,
    )


def channels_last(images: ImageSet, device: str) -> torch.Tensor:
    return images.images.to(device).permute(0, 2, 3, 1).contiguous()


def _full(values: dict, like: dict) -> dict:
    """Rates that are one number, as often as there are parameters."""
    return {name: values[name].expand(value.shape) for name, value in like.items()}


def _moments(state: State, key: str) -> tuple[dict, dict]:
    """Adam's moments of parameters and rates: zero where there are none."""

    def of(tensors: dict) -> dict:
        return {
            name: state.optimizer.state.get(value, {}).get(key, torch.zeros_like(value))
            for name, value in tensors.items()
        }

    return of(state.params), _full(of(state.alpha), state.params)


def _rates(states: list[State]) -> torch.Tensor:
    """The outer rates [2, n_networks, 1]; 0 of inner rates that are not learned."""
    groups = [state.optimizer.param_groups for state in states]
    own = [[g[0]["lr"], g[1]["lr"] if len(g) > 1 else 0.0] for g in groups]
    return torch.tensor(own).T[..., None].contiguous()


def _fetch(group: Group, states: list[State], n_updates: int) -> None:
    """Bring the stretch's history, parameters, rates and moments to the states."""
    history = group.history[:n_updates].to("cpu", copy=True)
    values, mean, square = (t.cpu() for t in (group.values, group.mean, group.square))
    for i, state in enumerate(states):
        for loss, accuracy, largest in history[:, :, i]:
            add_row(state, loss, accuracy, largest)
        learned = [state.params] if state.alpha["norm1.bias"].dim() == 0 else [
            state.params, state.alpha
        ]  # fmt: skip
        for which, tensors in enumerate(learned):
            new = group.layout.unpack(values[which, i], tensors)
            moments = [
                group.layout.unpack(
                    m[which, i], {n: torch.zeros_like(v) for n, v in tensors.items()}
                )
                for m in (mean, square)
            ]
            for name, value in tensors.items():
                value.copy_(new[name])
                state.optimizer.state[value] = {
                    "step": torch.tensor(float(state.update)),
                    "exp_avg": moments[0][name],
                    "exp_avg_sq": moments[1][name],
                }


def _write(configs, states, directories, manifests, saves: bool) -> None:
    """Rates of the halt that all states are at, and where it `saves` checkpoints, of all before it
    raises FloatingPointError for one."""
    lost = []
    for config, state, directory, manifest in zip(
        configs, states, directories, manifests, strict=True
    ):
        if not state.rates or state.rates[-1]["update"].iloc[-1] != state.update:
            record_rates(config, state)
        if saves:
            try:
                save(state, directory, manifest)
            except FloatingPointError as error:
                lost.append(error)
    if lost:
        raise lost[0]


def _progress(states: list[State], seconds: float, first: int) -> str:
    rows = [state.rows[-1] for state in states]
    accuracies = " ".join(f"{100 * row['val_accuracy']:.1f}" for row in rows if row["val_accuracy"])
    each = seconds / (states[0].update - first)
    return f"meta-update {states[0].update}, {1000 * each:.2f} ms each; validation {accuracies}"
