"""The device of a computation, and its memory."""

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from negmeta_utils.engine import library

# What torch computes of float32 in fewer digits where it is told to.
PRODUCTS = (
    torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn,
)  # fmt: skip
_LOCK = threading.Lock()
_FOUND: list[list[str]] = []  # `PRODUCTS` as each `exact_products` that has not ended found them


def cores() -> int:
    """How many this process may use: `taskset`, SLURM and containers may allow fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """The hardware in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def arithmetic() -> dict[str, str | None]:
    """What the last digits may depend on: the processor, the vectors in use, the compiler of
    `engine/native` and torch's BLAS."""
    return {
        "processor": _processor(),
        "vectors": library.vectors(),
        "compiler": library.compiler_version(),
        "blas": "MKL" if torch.backends.mkl.is_available() else "not MKL",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def resolve_device(name: str) -> torch.device:
    """The device of that name; auto is CUDA where there is one, else the CPU.

    Raises ValueError for another kind of device, and for CUDA that is absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r}: use 'auto', 'cpu' or 'cuda'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name!r}: no such CUDA device here; use device='auto' or 'cpu'")
    return device


@contextmanager
def memory_named(device: torch.device, lower: str) -> Iterator[None]:
    """MemoryError with the settings to `lower`, for whatever torch or NumPy says when memory on
    `device` does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if known or "can't allocate memory" in str(error):  # the CPU's is a plain RuntimeError
            raise MemoryError(f"device={str(device)!r}: out of memory; lower {lower}") from error
        raise


@contextmanager
def exact_products() -> Iterator[None]:
    """Convolutions and products of float32 throughout, whatever torch's switches say, old or new:
    on a GPU it makes convolutions of TensorFloat-32 by default, and a meta-gradient of these is
    wrong by tenths (docs/speed.md). The switches belong to the whole process: where several
    threads are inside, whoever leaves last puts back what the first has found."""
    with _LOCK:
        _FOUND.append([product.fp32_precision for product in PRODUCTS])
        for product in PRODUCTS:
            product.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _LOCK:
            found = _FOUND.pop()  # of the last to leave, the first that was put there
            if not _FOUND:
                _put_back(found)


def _put_back(found: list[str]) -> None:
    for product, precision in zip(PRODUCTS, found, strict=True):
        product.fp32_precision = "none"  # that is, as the switch above it, which may be turned
        if product.fp32_precision != precision:
            product.fp32_precision = precision
