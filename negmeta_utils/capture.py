"""One CUDA graph in place of a thousand launches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Step = Callable[[torch.Tensor], torch.Tensor]


def as_graph(function: Step) -> Step:
    """`function` of one tensor on a GPU, replayed from its second call on.

    The first call runs it as it is: that compiles kernels and makes what is made once, such as an
    optimiser's state. The second records what it launches, and runs that; so does every later one.
    What it reads and writes besides its argument must stay where it is in memory, and nothing in
    it may wait for the GPU. Raises RuntimeError where something does.
    """
    warm, graph, given, result = False, None, None, None

    def call(x: torch.Tensor) -> torch.Tensor:
        nonlocal warm, graph, given, result
        if not warm:
            warm = True
            return function(x)
        if graph is None:
            given, graph = x.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = function(given)
        given.copy_(x)
        graph.replay()
        return result.clone()

    return call


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Products of float32 matrices and convolutions on a GPU by TF32 for "tf32" (a mantissa of 10
    bits), exact to float32 for "float32"."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
