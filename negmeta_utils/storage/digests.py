"""A digest in every file that is kept, so that one that changed afterwards is noticed.

It stands in the file's own metadata, survives copies, and is the SHA-256 of all the file's bytes
with zeros where it stands itself.
"""

import hashlib
import mmap
from pathlib import Path
from typing import BinaryIO

KEY = "digest"  # of the metadata
_MARK = b"negmeta-sha256:"
EMPTY = _MARK.decode() + 64 * "0"
_CHUNK = 2**20
AGAIN = "restore it from a copy, or delete it and make it again"


def seal(path: Path) -> str:
    """Put its digest into a file whose metadata hold `EMPTY`, and return it: 64 hexadecimals."""
    with path.open("r+b") as file:
        at = _place(file)
        digest = _digest(file, at)
        file.seek(at)
        file.write(digest.encode())
    return digest


def check(path: Path) -> str:
    """The digest that `path` holds.

    Raises ValueError where there is none, or it is not that of the file's content; OSError where
    the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            at = _place(file)
            file.seek(at)
            held, actual = file.read(64).decode(errors="replace"), _digest(file, at)
    except ValueError as error:
        raise ValueError(
            f"{path}: not a whole file of this package (it holds no digest); {AGAIN}"
        ) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    if held != actual:
        raise ValueError(f"{path}: not what was written (its digest is another); {AGAIN}")
    return held


def _place(file: BinaryIO) -> int:
    """Where the digest begins. Raises ValueError where there is none."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_MARK)
    if at < 0:
        raise ValueError("no digest")
    return at + len(_MARK)


def _digest(file: BinaryIO, at: int) -> str:
    file.seek(0)
    digest = hashlib.sha256(file.read(at))
    digest.update(b"0" * 64)
    file.seek(at + 64)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
