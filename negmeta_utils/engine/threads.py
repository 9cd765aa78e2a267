"""Work on several cores at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

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
