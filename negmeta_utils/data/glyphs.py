"""Glyphs: an embedded data set of characters drawn from the DejaVu fonts.

Every class is one character, every image that character in one of twelve DejaVu text faces,
deformed at random: 28 x 28 pixels, grey, ink bright on black. No download, and no two classes that
look alike, so it is a few-shot problem on which methods can be told apart in minutes.

The splits hold different scripts, so a test class is never a variant of a training class:

    train   Latin, Cyrillic, Lisu, and the symbols up to U+2BFF (digits, punctuation, currency,
            arrows, mathematics, technical signs, dingbats)
    val     Canadian syllabics
    test    Greek, Coptic, Georgian, Armenian, Hebrew, Arabic, Lao, Old Italic

The images are shipped as they were drawn once, by `tools/draw_glyphs.py` in the repository: drawn
anew by another release of Pillow they would be other data.
"""

import hashlib
import json
import lzma
from functools import cache
from pathlib import Path

import numpy as np

IMAGE_SIZE = 28
DRAWN = Path(__file__).parent / "drawn"
CLASSES = DRAWN / "classes.json"


def read_split(split: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """All images of `split`: uint8 [n_classes, 20, 28, 28], and the characters' Unicode names.

    Raises ValueError for a file that does not hold the images that were shipped.
    """
    path, about = DRAWN / f"{split}.npy.xz", _classes()[split]
    try:
        with lzma.open(path) as file:
            images = np.load(file)
    except (lzma.LZMAError, EOFError, ValueError):
        images = np.empty(0, np.uint8)
    if digest_of(images) != about["sha256"]:
        raise ValueError(f"{path}: not what was shipped; install the package again")
    return images, tuple(about["names"])


def source_fingerprint() -> str:
    """Hex digest of the images of all splits."""
    digests = " ".join(split["sha256"] for split in _classes().values())
    return hashlib.sha256(digests.encode()).hexdigest()


def digest_of(images: np.ndarray) -> str:
    """Hex digest of pixels and shape."""
    return hashlib.sha256(f"{images.shape}".encode() + images.tobytes()).hexdigest()


@cache
def _classes() -> dict[str, dict]:
    return json.loads(CLASSES.read_text(encoding="utf-8"))
