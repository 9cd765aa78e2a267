"""One CUDA graph in place of a thousand launches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# By torch's names, which speak of matrix products alone; our convolutions go by them too.
PRECISIONS = {"float32": "highest", "tf32": "high", "bfloat16": "medium"}
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
    """What float32 numbers are rounded to where they are multiplied in matrices and convolutions:
    nothing for "float32"; on a GPU a mantissa of 10 bits for "tf32"; on a CPU one of 7 bits for
    "bfloat16", in the inner loop's convolutions by blocks 2 to 4 and their outputs."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(PRECISIONS[precision])
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
