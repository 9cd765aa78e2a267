"""Several trainings side by side on one GPU, in lockstep.

One training leaves a GPU idle: its kernels are short. Here a kernel works on the tasks of all
networks at once, and a meta-update is one CUDA graph. Each training is what `training.train` makes
of its configuration, but for the last digits; its directory is one that `train` can go on from, on
any device.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from negmeta_utils.adaptation import BEND, METHODS
from negmeta_utils.checkpoints import State, begin, find_run, fresh_state, keep, resume, save
from negmeta_utils.config import TrainConfig
from negmeta_utils.episodes import ImageSet, rows_of_episodes
from negmeta_utils.gpu.meta_gradient import adapted_logits, losses, meta_gradients
from negmeta_utils.gpu.passes import Batch
from negmeta_utils.gpu.vectors import Layout
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.training import (
    add_row,
    new_manifest,
    note_validation,
    record_rates,
    validation_episodes,
)

# What the trainings of a group have in common: the shapes of all that is computed.
ALIKE = (
    "dataset", "classes", "n_way", "n_shot", "n_query", "image_size", "n_filters", "n_tasks",
    "inner_steps", "val_every", "val_episodes", "n_updates",
)  # fmt: skip
BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's, as torch has them
TASKS_AT_ONCE = 3 * 10**7  # pixels of query images in a batch of validation
SAVED_EVERY = 60  # seconds


@dataclass
class Group:
    """Trainings on the device. The first dimension of `values`, `grads`, `mean`, `square` and `lr`
    is the two things that are learned: parameters and unconstrained rates.

    values, mean, square: [2, n_networks, length], with Adam's moments. lr: [2, n_networks, 1].
    positive: bool [n_networks, 1], of rates that are kept positive.
    step, row: meta-updates done, and done of this stretch, as one number on the device.
    support, query: int32 [stretch, n_networks * n_tasks, n], rows of images.
    history: [stretch, 3, n_networks]: loss, accuracy and the largest absolute value.
    """

    layout: Layout
    images: torch.Tensor  # uint8 [n_images, height, width, channels]
    labels: tuple[torch.Tensor, torch.Tensor]
    values: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    lr: torch.Tensor
    positive: torch.Tensor
    step: torch.Tensor
    row: torch.Tensor
    support: torch.Tensor
    query: torch.Tensor
    history: torch.Tensor
    inner_steps: int


def train_together(
    configs: list[TrainConfig],
    directories: list[Path],
    splits: dict[str, ImageSet],
    report: Callable[[str], None] = lambda text: None,
    seconds: float = float("inf"),
    device: str = "cuda",
) -> None:
    """Train to the last meta-update, or to the first check after so many `seconds`.

    Each directory then holds a checkpoint of its training, from which `training.train` goes on: of
    one at its last meta-update, to the final accuracy on the test classes. splits: as
    `training.load_splits` gives them. Raises ValueError for configurations that cannot be trained
    side by side, and what `training.train` does.
    """
    _check_alike(configs)
    states, manifests = _begin(configs, directories, splits, torch.device(device))
    group = _group(configs, states, splits["train"], device)
    validation = _turned(splits["val"], device)
    update_all = _captured(group)
    started = saved = time.monotonic()
    stretches = _stretches(configs[0], states[0].update)
    spent = [state.seconds for state in states]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("forkserver")) as pool:
        drawn = _drawn(pool, configs, splits, stretches)
        for first, last in stretches:
            _load_rows(group, next(drawn), configs[0].n_shot)
            for _ in range(last - first):
                update_all()
            # While the device computes: what the stretch before has left to write.
            due = first > stretches[0][0] and time.monotonic() - saved > SAVED_EVERY
            _write(configs, states, directories, manifests, due)
            saved = time.monotonic() if due else saved
            _fetch(group, states, last - first)
            if last % configs[0].val_every == 0 or last == configs[0].n_updates:
                found = _validate(group, configs, validation, next(drawn))
                for config, state, directory, of_one in zip(
                    configs, states, directories, found, strict=True
                ):
                    note_validation(config, state, directory, *of_one)
                group.lr.copy_(_rates(states).to(device))
            for config, state, directory, before in zip(
                configs, states, directories, spent, strict=True
            ):
                if last in config.keep_at:
                    keep(state, directory, config.method, str(last))
                state.seconds = before + time.monotonic() - started
            report(_progress(states, time.monotonic() - started, stretches[0][0]))
            if time.monotonic() - started > seconds:
                break
        _write(configs, states, directories, manifests, True)
        pool.shutdown(cancel_futures=True)


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


def _begin(configs, directories, splits, device) -> tuple[list[State], list[dict]]:
    states, manifests = [], []
    for config, directory in zip(configs, directories, strict=True):
        directory.mkdir(parents=True, exist_ok=True)
        manifest = new_manifest(config, device, splits)
        manifest["environment"]["kernels"] = "triton"
        manifest["environment"]["trained_together"] = len(configs)
        found = find_run(directory, manifest)
        state = fresh_state(config, CONV4, splits["train"].channels, torch.device("cpu"))
        states.append(resume(directory, state, manifest))
        manifests.append(begin(directory, manifest, found))
    if len({state.update for state in states}) > 1:
        raise ValueError("trainings that go on together must be at the same meta-update")
    return states, manifests


def _group(
    configs: list[TrainConfig], states: list[State], images: ImageSet, device: str
) -> Group:
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
        images=_turned(images, device),
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
    )


def _turned(images: ImageSet, device: str) -> torch.Tensor:
    """The images with channels last."""
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


def inner_rates(free: torch.Tensor, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rates that unconstrained ones stand for (`adaptation.constrained`), and the derivative;
    the identity where not `positive`."""
    root = (free * free + BEND**2).sqrt()
    bent = torch.where(free > 0, (root + free) / 2, BEND**2 / 2 / (root - free))
    return torch.where(positive, bent, free), torch.where(positive, bent / root, 1.0)


def _update(group: Group) -> None:
    """One meta-update of every network, all on the device and in place."""
    alpha, slope = inner_rates(group.values[1], group.positive)
    support, query = (
        Batch(group.images, rows.index_select(0, group.row)[0], labels)
        for rows, labels in zip((group.support, group.query), group.labels, strict=True)
    )
    found = meta_gradients(
        group.layout, group.values[0], alpha, support, query, group.inner_steps
    )
    gradient = torch.stack([found.params, found.alpha * slope])
    group.step += 1
    group.mean.lerp_(gradient, 1 - BETAS[0])
    group.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    first, second = (1 - beta**group.step for beta in BETAS)
    denominator = (group.square.sqrt() / second.sqrt().float()).add_(EPS)
    group.values -= group.lr / first.float() * group.mean / denominator
    state = torch.stack([group.values, group.mean, group.square])
    largest = state.abs().amax((0, 1, 3))
    record = torch.stack([found.loss, found.accuracy, largest])
    group.history.index_copy_(0, group.row, record[None])
    group.row += 1


def _captured(group: Group) -> Callable[[], None]:
    """`_update` as one CUDA graph; on a CPU, as it is."""
    if group.values.device.type != "cuda":
        return lambda: _update(group)
    kept = [group.values, group.mean, group.square, group.step, group.row, group.history]
    before = [tensor.clone() for tensor in kept]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _update(group)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _update(group)
    for tensor, value in zip(kept, before, strict=True):
        tensor.copy_(value)
    return graph.replay


def _stretches(config: TrainConfig, update: int) -> list[tuple[int, int]]:
    """First and last meta-update between two halts, at which networks are validated or kept."""
    halts = {*range(0, config.n_updates, config.val_every), *config.keep_at, config.n_updates}
    halts = [update, *sorted(halt for halt in halts if halt > update)]
    return list(zip(halts, halts[1:], strict=False))


def _drawn(
    pool: ProcessPoolExecutor, configs: list[TrainConfig], splits: dict, stretches: list
) -> Iterator[torch.Tensor]:
    """Rows of the episodes of each stretch, and of its check if there is one, drawn ahead in other
    processes: int32 [n_networks, n_episodes, n_way, n_per_class]."""
    waiting: list[list[Future]] = []
    for first, last in stretches:
        tasks = [range(first * c.n_tasks, last * c.n_tasks) for c in configs]
        waiting.append(_submit(pool, configs, splits["train"], "train", tasks))
        if last % configs[0].val_every == 0 or last == configs[0].n_updates:
            checks = [validation_episodes(c, last) for c in configs]
            waiting.append(_submit(pool, configs, splits["val"], "val", checks))
    for futures in waiting:
        yield torch.stack([future.result() for future in futures])
        futures.clear()


def _submit(pool, configs, images: ImageSet, stream: str, episodes: list[range]) -> list[Future]:
    known: dict = {}
    for config, indices in zip(configs, episodes, strict=True):
        if (config.seed, indices) not in known:
            known[config.seed, indices] = pool.submit(
                _draw, images.class_sizes, config.seed, stream, indices, config.n_way,
                config.n_shot + config.n_query,
            )  # fmt: skip
    return [known[c.seed, indices] for c, indices in zip(configs, episodes, strict=True)]


def _draw(sizes: np.ndarray, seed: int, stream: str, indices: range, n_way: int, each: int):
    return rows_of_episodes(sizes, seed, stream, indices, n_way, each).int()


def _load_rows(group: Group, rows: torch.Tensor, n_shot: int) -> None:
    """Rows [n_networks, n_updates * n_tasks, n_way, n_per_class] to the device."""
    n_tasks = group.support.shape[1] // len(rows)
    by_update = rows.unflatten(1, (-1, n_tasks)).transpose(0, 1).flatten(1, 2)
    n_updates = len(by_update)
    group.support[:n_updates].copy_(by_update[..., :n_shot].flatten(2))
    group.query[:n_updates].copy_(by_update[..., n_shot:].flatten(2))
    group.row.zero_()


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


def _validate(
    group: Group, configs: list[TrainConfig], images: torch.Tensor, rows: torch.Tensor
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each network, loss and accuracy of each episode."""
    alpha, _ = inner_rates(group.values[1], group.positive)
    n_networks, n_episodes = rows.shape[:2]
    n_shot = configs[0].n_shot
    pixels = n_networks * group.query.shape[2] * images.shape[1] * images.shape[2]
    batch = max(1, TASKS_AT_ONCE // pixels)
    found = []
    for first in range(0, n_episodes, batch):
        part = rows[:, first : first + batch].flatten(0, 1).to(images.device)
        support, query = (
            Batch(images, chosen.flatten(1).contiguous(), labels)
            for chosen, labels in zip(
                (part[..., :n_shot], part[..., n_shot:]), group.labels, strict=True
            )
        )
        logits = adapted_logits(
            group.layout, group.values[0], alpha, support, query, group.inner_steps
        )
        of_tasks = torch.stack(losses(logits, group.labels[1]))
        found.append(of_tasks.unflatten(1, (n_networks, -1)))
    every = torch.cat(found, 2).cpu().numpy()
    return [(every[0, i], every[1, i]) for i in range(n_networks)]


def _write(configs, states, directories, manifests, saves: bool) -> None:
    """Rates of the halt that all states are at, and where it `saves` checkpoints."""
    for config, state, directory, manifest in zip(
        configs, states, directories, manifests, strict=True
    ):
        if not state.rates or state.rates[-1]["update"].iloc[-1] != state.update:
            record_rates(config, state)
        if saves:
            save(state, directory, manifest)


def _progress(states: list[State], seconds: float, first: int) -> str:
    rows = [state.rows[-1] for state in states]
    accuracies = " ".join(f"{100 * row['val_accuracy']:.1f}" for row in rows if row["val_accuracy"])
    each = seconds / (states[0].update - first)
    return f"meta-update {states[0].update}, {1000 * each:.2f} ms each; validation {accuracies}"
