"""Cache files of decoded images: safetensors with one tensor, `images`, and a digest of it all.

The digest is checked whenever a file is read: a run records the fingerprint of the images that it
used, so it must not use others. That takes a second for Mini-ImageNet at 84x84 (1.3 GB) and a
tenth of one at 28x28.
"""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
from safetensors import safe_open

from negmeta_utils.episodes import ImageSet


def write(path: Path, name: str, images: np.ndarray, names: tuple[str, ...], sizes: np.ndarray):
    """Write a split to `path`, which the caller then moves to a file called `name`.

    images: uint8 [n_images, channels, height, width]. names, sizes: of the classes in their order,
    and how many images each has. Raises OSError as `open` and `write` do.
    """
    images = np.ascontiguousarray(images)
    about = {
        "name": name,
        "class_names": list(names),
        "class_sizes": [int(n) for n in sizes],
        "fingerprint": fingerprint(images, names),
    }
    metadata = {"json": json.dumps(about), "digest": _digest(about, images)}
    tensor = {"dtype": "U8", "shape": images.shape, "data_offsets": [0, images.nbytes]}
    header = json.dumps({"__metadata__": metadata, "images": tensor}).encode()
    header += b" " * (-len(header) % 8)
    # Not by safetensors' own function: it takes a second copy of all images in memory, and makes
    # files that nobody else may read.
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.write(images.data)


def read(path: Path) -> ImageSet:
    """The split in the cache file `path`, mapped from it.

    Raises FileNotFoundError where it is not there, ValueError where it is not what was written.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, images = file.metadata(), file.get_tensor("images")
        about = json.loads(metadata["json"])
        if about["name"] != path.name or metadata["digest"] != _digest(about, images.numpy()):
            raise ValueError("its digest is another")
        sizes = np.array(about["class_sizes"], dtype=np.int64)
        return ImageSet(images, tuple(about["class_names"]), sizes, about["fingerprint"])
    except Exception as error:  # a header may be damaged in any way
        raise ValueError(f"{path}: not what was written ({error})") from error


def kept(path: Path) -> ImageSet | None:
    """As `read`; None where there is no such file, or it has to be made again."""
    try:
        return read(path)
    except (FileNotFoundError, ValueError):
        return None


def fingerprint(images: np.ndarray, names: tuple[str, ...]) -> str:
    """Short digest of pixels and class names."""
    digest = hashlib.sha256(json.dumps([images.shape, names]).encode())
    digest.update(images.data)
    return digest.hexdigest()[:16]


def _digest(about: dict, images: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps([about, images.shape, str(images.dtype)]).encode())
    digest.update(images.data)
    return digest.hexdigest()
