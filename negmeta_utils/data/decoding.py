"""Images, from files or from memory, to one array of bytes."""

import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from PIL import Image
from tqdm import tqdm

from negmeta_utils.data import pictures
from negmeta_utils.data.layouts import Split
from negmeta_utils.data.names import shown

PROGRESS_FROM = 5000  # images; fewer are read before anyone would look
LARGE = 2**24  # pixels; of images larger than that, one at a time is in memory
# What Pillow's decoders raise for content that is no whole image.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError, IndexError, KeyError,
    TypeError, Image.DecompressionBombError,
)  # fmt: skip


def decode(split: Split, mode: str, size: int, label: str = "reading images") -> np.ndarray:
    """The images of `split` as viewers show them: uint8 [n_images, channels, size, size].

    mode: Pillow's "RGB" or "L". Raises ValueError for an image that cannot be read,
    FileNotFoundError for one that is not there, OSError for one that may not be read.
    """
    channels = len(Image.new(mode, (1, 1)).getbands())
    images = np.empty((len(split.images), channels, size, size), dtype=np.uint8)

    def into_row(row: int, image: Image.Image) -> None:
        images[row] = resized(pictures.as_shown(image, mode), size)

    for _ in _each(split, into_row, label):
        pass
    return images


def sizes(split: Split, label: str = "reading images") -> list[tuple[int, int]]:
    """Width and height of every image as shown, each read to its end. Raises as `decode`."""
    return list(_each(split, lambda _, image: pictures.as_shown(image, "RGB").size, label))


def resized(image: Image.Image, size: int) -> np.ndarray:
    """`image` as [channels, size, size]; Pillow's bilinear filter averages where it shrinks."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _each(split: Split, use: Callable[[int, Image.Image], object], label: str) -> Iterator:
    """`use(row, image)` of every image in order, several at a time, with a bar of progress."""
    alone = threading.Lock()

    def is_large(image: Image.Image) -> bool:
        return image.width * image.height > LARGE

    def one(row: int) -> object:
        given = split.images[row]
        try:
            with pictures.opened(given) as image, alone if is_large(image) else nullcontext():
                return use(row, image)
        except BROKEN as error:
            name = given if isinstance(given, str) else f"{split.origin}: image {row}"
            raise refused(name, error) from error

    n_images = len(split.images)
    # Pillow releases the interpreter's lock while it decodes, so threads keep all cores busy.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # of Pillow, on EXIF and sizes: both are looked at here
        rows = pool.map(one, range(n_images))
        yield from tqdm(rows, label, n_images, mininterval=2, disable=n_images < PROGRESS_FROM)


def refused(name: str, error: Exception) -> Exception:
    """`error`, as it came of the image called `name`, in one line that names it."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{name}: listed, but not there; complete the data")
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(f"{name}: cannot be opened ({error.strerror}); make it readable")
    return ValueError(f"{name}: not a readable image ({shown(error)[:200]}); replace it")
