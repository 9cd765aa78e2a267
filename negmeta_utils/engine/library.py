"""C sources of this package as a library, compiled where it runs."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from negmeta_utils import storage

SOURCES = Path(__file__).parent / "native"
# No product and sum become one rounding but where the source says so: compilers differ in where.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC")
AVX2 = ("-mavx2", "-mfma")
# By what torch finds in the processor, or is told to (ATEN_CPU_CAPABILITY). All but the width of
# vectors is the same, and so are the digits.
VECTORS = {
    "AVX2": AVX2,
    "AVX512": (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
}


@functools.cache
def library(bits: int = 32) -> ctypes.CDLL | None:
    """The functions of `native/*.c`, whose comments say what they do, on floating-point numbers of
    32 or 64 bits. None where there is no compiler (CC, or `cc`), or it cannot compile them, or
    nothing can be kept.

    Compiled once, in some seconds, and kept beside decoded data sets under a name that says from
    which sources, by which compiler and for which vectors.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    command = [compiler, *FLAGS, *VECTORS.get(vectors(), ()), f"-DBITS={bits}"]
    sources = sorted(SOURCES.glob("*.[ch]"))
    try:
        key = hashlib.sha256(_macros(command) + repr(command).encode())
        for source in sources:
            key.update(source.read_bytes())
        path = storage.cache_folder() / f"native-{key.hexdigest()[:16]}.so"
        if not path.exists():
            storage.make_folder(path.parent)
            with storage.replacing(path) as temporary:
                _compile(command, [s for s in sources if s.suffix == ".c"], temporary)
        loaded = ctypes.CDLL(str(path))
        loaded.keep_memory()
        return loaded
    except (OSError, subprocess.SubprocessError):
        return None


def vectors() -> str:
    """The kind of vectors in use, as torch names it: AVX2, AVX512, or another."""
    return torch.backends.cpu.get_cpu_capability()


def compiler_version() -> str | None:
    """What the compiler says of itself; None where there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return next(iter(said.stdout.splitlines()), None)


def _macros(command: list[str]) -> bytes:
    """What the compiler says of itself and of what it compiles for."""
    command = [*command, "-dM", "-E", "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _compile(command: list[str], sources: list[Path], out: Path) -> None:
    """Each source by a process of its own: on two cores in half the time."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        commands = [
            [*command, "-c", str(source), "-o", str(made)]
            for source, made in zip(sources, objects, strict=True)
        ]
        list(pool.map(_run, commands))
        _run([*command, "-shared", *map(str, objects), "-o", str(out)])


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True)
