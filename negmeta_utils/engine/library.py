"""C sources of this package as a library, compiled where it runs."""

import ctypes
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

from negmeta_utils.storage import atomic, paths

SOURCES = Path(__file__).parent / "native"
# No product and sum become one rounding but where the source says so: compilers differ in where.
# They come after CC's own, whose -ffast-math would change digits, here and in all of the process.
FLAGS = (
    "-std=gnu11", "-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations",
    "-fno-associative-math", "-fno-reciprocal-math", "-fno-finite-math-only", "-fsigned-zeros",
    "-ffp-contract=off", "-fno-math-errno", "-fPIC",
)  # fmt: skip
AVX2 = ("-mavx2", "-mfma")
# By what torch finds in the processor, or is told to (ATEN_CPU_CAPABILITY). All but the width of
# vectors is the same, and so are the digits.
VECTORS = {
    "AVX2": AVX2,
    "AVX512": (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
}


UNUSED = 90 * 24 * 3600  # seconds
_one_at_a_time = threading.Lock()


def library(bits: int = 32) -> ctypes.CDLL | None:
    """The functions of `native/*.c`, whose comments say what they do, on floating-point numbers of
    32 or 64 bits. None where there is no compiler (CC, or `cc`), or it cannot compile them, or
    nothing can be kept; a warning says which, once.

    Compiled once, in some seconds, and kept in a folder of this user's alone, beside decoded data
    sets or in the user's own cache, under a name that says from which sources, by which compiler
    and for which vectors. What was not used for `UNUSED` seconds goes when more is compiled.
    """
    with _one_at_a_time:
        return _library(bits)


@functools.cache
def _library(bits: int) -> ctypes.CDLL | None:
    try:
        command = [*_compiler(), *FLAGS, *VECTORS.get(vectors(), ()), f"-DBITS={bits}"]
        sources = sorted(SOURCES.glob("*.[ch]"))
        key = hashlib.sha256(_macros(command) + repr(command).encode())
        for source in sources:
            key.update(source.read_bytes())
        folder = _private(_place() / f"code-{os.getuid()}")
        path = folder / f"{key.hexdigest()}.so"
        if not _is_whole(path):
            with (folder / atomic.LOCK).open("a") as lock:  # one process compiles, others wait
                atomic.lock(lock, fcntl.LOCK_EX)
                if not _is_whole(path):
                    _clear_unused(folder)
                    _make(path, command, [s for s in sources if s.suffix == ".c"])
        os.utime(path)
        return ctypes.CDLL(str(path))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        reason = next(iter(said.decode(errors="replace").splitlines()), "no reason given")
        warnings.warn(
            "the C sources of the engine are not used, and PyTorch is slower and gives other last "
            f"digits ({reason}); install a C compiler, name one in CC, or set NEGMETA_CACHE to a "
            "folder of your own",
            stacklevel=3,
        )
        return None


def _make(path: Path, command: list[str], sources: list[Path]) -> None:
    """The library at `path`, its digest behind all that is loaded of it."""
    with atomic.replacing(path) as temporary:
        _compile(command, sources, temporary)
        with temporary.open("r+b") as file:
            file.write(hashlib.sha256(file.read()).digest())


def _place() -> Path:
    """The cache folder or, where another user could put something in the place of what is written
    there, or this one cannot write, the user's own."""
    shared = paths.cache_folder()
    atomic.make_folder(shared)
    whole = shared.resolve()
    safe = os.access(whole, os.W_OK) and all(map(_is_safe, (whole, *whole.parents)))
    return shared if safe else paths.own_cache()


def _is_safe(folder: Path) -> bool:
    """Whether only this user and the system can move or replace what this user has in `folder`."""
    found, system = folder.stat(), Path("/").stat()
    by_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (os.getuid(), system.st_uid) and not by_others


def _clear_unused(folder: Path) -> None:
    """Remove libraries that no version of the sources, nor compiler, of late has asked for."""
    for path in folder.glob("*.so"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > UNUSED:
                path.unlink()


def _private(folder: Path) -> Path:
    """`folder`, made where missing, that nobody but this user can write to or read. What lies in
    one that others could write to is removed. Raises OSError where it is another user's."""
    atomic.make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{folder}: not a folder of this user's, so nothing in it is loaded")
    if found.st_mode & 0o022:
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    folder.chmod(0o700)
    return folder


def _is_whole(path: Path) -> bool:
    """Whether `path` is a library as it was written: with a digest of all before it at its end."""
    if path.is_symlink() or not path.is_file():
        return False
    content = path.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def _compiler() -> list[str]:
    """The command of the C compiler: CC, which may hold options or a wrapper, or else `cc`. Raises
    FileNotFoundError where there is none."""
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    found = shutil.which(command[0])
    if found is None:
        raise FileNotFoundError(f"{command[0]}: no such compiler here")
    return [found, *command[1:]]


def vectors() -> str:
    """The kind of vectors in use, as torch names it: AVX2, AVX512, or another."""
    return torch.backends.cpu.get_cpu_capability()


def compiler_version() -> str | None:
    """What the compiler says of itself; None where there is none."""
    try:
        said = subprocess.run([*_compiler(), "--version"], capture_output=True, text=True)
    except (OSError, ValueError):
        return None
    return next(iter(said.stdout.splitlines()), None)


def _macros(command: list[str]) -> bytes:
    """What the compiler says of itself and of what it compiles for."""
    command = [*command, "-dM", "-E", "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _compile(command: list[str], sources: list[Path], out: Path) -> None:
    """Each source by a process of its own, to an object beside `out`: on two cores in half the
    time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [out.with_name(f"{source.stem}.o") for source in sources]
        commands = [
            [*command, "-c", str(source), "-o", str(made)]
            for source, made in zip(sources, objects, strict=True)
        ]
        list(pool.map(_run, commands))
        _run([*command, "-shared", *map(str, objects), "-o", str(out)])


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=True)
