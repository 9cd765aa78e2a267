"""Images, from files or from memory, to one array of bytes."""

import io
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from tqdm import tqdm

from negmeta_utils.data.layouts import Split

PROGRESS_FROM = 5000  # images; fewer are read before anyone would look
# What Pillow's decoders raise for content that is no whole image.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def decode(split: Split, mode: str, size: int, label: str = "reading images") -> np.ndarray:
    """The images of `split`: uint8 [n_images, channels, size, size].

    mode: Pillow's "RGB" or "L". Raises ValueError for an image that cannot be read,
    FileNotFoundError for one that is not there.
    """
    channels = len(Image.new(mode, (1, 1)).getbands())
    images = np.empty((len(split.images), channels, size, size), dtype=np.uint8)

    def into_row(row: int, image: Image.Image) -> None:
        images[row] = resized(image.convert(mode), size)

    for _ in _each(split, into_row, label):
        pass
    return images


def sizes(split: Split, label: str = "reading images") -> list[tuple[int, int]]:
    """Width and height of every image, each read to its end. Raises as `decode`."""

    def size_of(row: int, image: Image.Image) -> tuple[int, int]:
        image.load()
        return image.size

    return list(_each(split, size_of, label))


def resized(image: Image.Image, size: int) -> np.ndarray:
    """[channels, size, size]; Pillow's bilinear filter averages where it makes smaller."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _each(split: Split, use: Callable[[int, Image.Image], object], label: str) -> Iterator:
    """`use(row, image)` of every image in order, several at a time, with a bar of progress."""

    def one(row: int) -> object:
        given = split.images[row]
        try:
            with _open(given) as image:
                return use(row, image)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{given}: listed, but not there; complete the data") from error
        except BROKEN as error:
            name = given if isinstance(given, str) else f"{split.origin}: image {row}"
            raise ValueError(f"{name}: not a readable image ({error}); replace it") from error

    n_images = len(split.images)
    # Pillow releases the interpreter's lock while it decodes, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(one, range(n_images))
        yield from tqdm(rows, label, n_images, mininterval=2, disable=n_images < PROGRESS_FROM)


def _open(image: str | bytes | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
