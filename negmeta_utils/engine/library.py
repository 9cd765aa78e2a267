"""C sources of this package as a library, compiled where it runs, for the processor it runs on."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from negmeta_utils import storage

SOURCES = Path(__file__).parent / "native"
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared")


@functools.cache
def library(bits: int = 32) -> ctypes.CDLL | None:
    """The functions of `native/*.c`, whose comments say what they do, on floating-point numbers of
    32 or 64 bits. None where there is no compiler (CC, or `cc`), or it cannot compile them, or
    nothing can be kept.

    Compiled once, in about two seconds, and kept beside decoded data sets under a name that says
    from which sources and for which processor.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    command = [compiler, *FLAGS, f"-DBITS={bits}"]
    sources = sorted(SOURCES.glob("*.[ch]"))
    try:
        key = hashlib.sha256(_target(command))
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


def _target(command: list[str]) -> bytes:
    """What the compiler says of itself and, because of -march=native, of this processor."""
    command = [*command, "-dM", "-E", "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _compile(command: list[str], sources: list[Path], out: Path) -> None:
    subprocess.run([*command, *map(str, sources), "-o", str(out)], capture_output=True, check=True)
