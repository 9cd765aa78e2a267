"""The device of a computation, and its memory."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from negmeta_utils.engine import library


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
    """Convolutions and products of float32 throughout, where on a GPU torch makes convolutions of
    TensorFloat-32 by default: a meta-gradient of these is wrong by tenths (docs/speed.md)."""
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    as_they_are = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(**as_they_are, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
