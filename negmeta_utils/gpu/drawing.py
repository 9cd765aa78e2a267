"""Episodes of networks side by side, drawn by a thread while the device computes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from negmeta_utils.config import TrainConfig
from negmeta_utils.episodes import ImageSet, rows_of_episodes
from negmeta_utils.training import validation_episodes

AHEAD = 2  # a check and the next stretch


def stretches_of(configs: list[TrainConfig], update: int) -> list[tuple[int, int]]:
    """First and last meta-update between two halts, at which networks are validated or one of them
    is kept. All are validated at the same ones."""
    one = configs[0]
    every = {*range(0, one.n_updates, one.val_every), one.n_updates}
    every |= {halt for config in configs for halt in config.keep_at}
    halts = [update, *sorted(halt for halt in every if halt > update)]
    return list(zip(halts, halts[1:], strict=False))


def drawn(
    pool: ThreadPoolExecutor, configs: list[TrainConfig], splits: dict, stretches: list
) -> Iterator[torch.Tensor]:
    """Rows of the episodes of each stretch, and of its check if there is one: int32
    [n_networks, n_episodes, n_way, n_per_class]. A stretch is drawn while the one before it
    computes, and no earlier: a thread that draws all the time keeps the interpreter from the one
    that feeds the device (24 networks waited two minutes for their first stretch)."""
    wanted: list[tuple[str, list[range]]] = []
    for first, last in stretches:
        wanted.append(("train", [range(first * c.n_tasks, last * c.n_tasks) for c in configs]))
        if last % configs[0].val_every == 0 or last == configs[0].n_updates:
            wanted.append(("val", [validation_episodes(c, last) for c in configs]))
    waiting: deque[list[Future]] = deque()
    for i in range(len(wanted)):
        for split, episodes in wanted[i + len(waiting) : i + 1 + AHEAD]:
            waiting.append(_submit(pool, configs, splits[split], split, episodes))
        yield torch.stack([future.result() for future in waiting.popleft()])


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
