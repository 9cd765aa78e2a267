"""Work on several cores at once."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from negmeta_utils.engine.device import exact_products
from negmeta_utils.episodes import ImageSet
from negmeta_utils.networks.conv4 import CONV4
from negmeta_utils.networks.network import Network

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], at_once: int
) -> Iterator[Result]:
    """`function` of each item, in their order; `at_once` of them run together, each with one of
    torch's threads. Where one raises, or nobody asks for more, those that wait are not begun."""
    n_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, "task", torch.set_num_threads, (1,))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(n_threads)  # a part of this setting belongs to the whole process


def in_batches(
    function: Callable[[range], Result],
    network: Network,
    images: ImageSet,
    episodes: range,
    at_once: int,
) -> Iterator[tuple[range, Result]]:
    """Episodes' numbers, and `function` of them, in their order.

    at_once: episodes in work at a time. On a CPU Conv4's are divided among threads, each of which
    does all that there is to do for its own; a module of somebody else's may not stand that.
    """
    alone = network is not CONV4 or images.images.is_cuda
    threads = 1 if alone else torch.get_num_threads()
    rounds = math.ceil(len(episodes) / at_once)
    batch = math.ceil(len(episodes) / (rounds * threads))
    parts = [episodes[start : start + batch] for start in range(0, len(episodes), batch)]
    if threads == 1:
        yield from zip(parts, map(function, parts), strict=True)
        return
    with exact_products():
        yield from zip(parts, side_by_side(function, parts, threads), strict=True)
