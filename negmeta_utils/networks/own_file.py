"""What the name of a network of one's own, FILE.py:CLASS, says. Nothing here loads torch."""

import hashlib
from pathlib import Path

from negmeta_utils.storage.paths import resolve


def split(name: object) -> tuple[Path, str]:
    """The file and the class that a name FILE.py:CLASS names, whether or not they are there."""
    path, _, attribute = str(name).rpartition(":")
    return resolve(path), attribute


def digest(name: object) -> str:
    """SHA-256 of the file that `name` names. Raises OSError where it cannot be read."""
    return hashlib.sha256(split(name)[0].read_bytes()).hexdigest()
