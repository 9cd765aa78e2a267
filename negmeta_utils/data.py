"""Named data sets: images by class, decoded once and cached as one array a split.

    glyphs         embedded (see `glyphs`)
    mini-imagenet  a folder in Ravi & Larochelle's layout: images/*.jpg, and train.csv, val.csv and
                   test.csv with the header filename,label; 64, 16 and 20 classes x 600
    omniglot       the official layout: images_background/ALPHABET/characterNN/*.png and
                   images_evaluation; ink is turned bright on black, and characters are not rotated
                   into further classes

The cache lies outside the clone. A file's name tells what it was made from, so a source that
changes is another file, and a file that does not read back whole is made again.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from platformdirs import user_cache_path
from tqdm import tqdm

from negmeta_utils import glyphs, runs
from negmeta_utils.episodes import ImageSet

SPLITS = ("train", "val", "test")
CACHE_FORMAT = 1  # raise it with any change of what a cache file holds
# Omniglot has no official validation split: every sixth of the background's thirty alphabets.
OMNIGLOT_VAL_EVERY = 6


@dataclass(frozen=True)
class Source:
    """Where the images of one split come from.

    files: image files in row order.
    class_names, class_sizes: classes in row order, and how many rows each has.
    mode: Pillow's "RGB" or "L". invert: whether ink is dark in the files.
    """

    files: list[Path]
    class_names: tuple[str, ...]
    class_sizes: np.ndarray
    mode: str
    invert: bool = False


@dataclass(frozen=True)
class Dataset:
    """A named data set: its usual image size, and its source on disk where it has one."""

    image_size: int
    source: Callable[[Path, str], Source] | None = None


def load(
    name: str,
    split: str,
    image_size: int | None = None,
    data_dir: str | None = None,
    cache_dir: str | Path | None = None,
) -> ImageSet:
    """One split of a named data set, on the CPU, mapped from the cache.

    image_size: height and width in pixels; None is the data set's usual one. data_dir: the data
    set's folder or its parent; None is the environment variable NEGMETA_DATA. cache_dir: None is
    NEGMETA_CACHE, or the user's cache directory.
    Raises ValueError for an unknown name or split and for images that cannot be read,
    FileNotFoundError for data that are not there.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: not one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: not one of {', '.join(SPLITS)}")
    dataset = DATASETS[name]
    size = image_size or dataset.image_size
    source = dataset.source(find_folder(name, data_dir), split) if dataset.source else None
    made_from = glyphs.source_fingerprint() if source is None else _source_key(source)
    key = hashlib.sha256(f"{CACHE_FORMAT} {name} {split} {size} {made_from}".encode()).hexdigest()
    path = _cache_folder(cache_dir) / f"{name}-{split}-{size}-{key[:16]}.safetensors"
    if path.exists():
        try:
            return _read_cache(path)
        except ValueError:
            path.unlink()  # cut short or not ours: made again below
    images, names, sizes = _draw_glyphs(split, size) if source is None else _decode(source, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "class_names": names,
        "class_sizes": [int(n) for n in sizes],
        "fingerprint": _fingerprint(images, names),
    }
    runs.write_tensors(path, {"data": {"images": torch.from_numpy(images)}}, metadata)
    return _read_cache(path)


def find_folder(name: str, data_dir: str | None) -> Path:
    """The folder of data set `name`. Raises FileNotFoundError, saying what to set."""
    given = data_dir or os.environ.get("NEGMETA_DATA")
    if not given:
        raise FileNotFoundError(
            f"{name}: set data_dir, or the variable NEGMETA_DATA, to the folder that holds "
            f"{name!r}; the README says where to get it"
        )
    parent = runs.resolve(given)
    folder = parent / name if (parent / name).is_dir() else parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: {folder} is not a folder; correct data_dir")
    return folder


def mini_imagenet_source(folder: Path, split: str) -> Source:
    """Classes and images in the order of the CSV file."""
    table = folder / f"{split}.csv"
    if not table.is_file() or not (folder / "images").is_dir():
        raise FileNotFoundError(
            f"mini-imagenet: {folder} has no {table.name} beside images/; data_dir must hold "
            "Ravi & Larochelle's layout: images/*.jpg, train.csv, val.csv, test.csv"
        )
    files: dict[str, list[Path]] = {}
    with table.open(newline="", encoding="utf-8-sig") as lines:
        for row in csv.DictReader(lines):
            if not row.get("filename") or not row.get("label"):
                raise ValueError(f"{table}: a row without filename or label: {row}; correct it")
            files.setdefault(row["label"], []).append(folder / "images" / row["filename"])
    return _source(files, "RGB")


def omniglot_source(folder: Path, split: str) -> Source:
    """Characters by alphabet; the evaluation set is the test split."""
    part = folder / ("images_evaluation" if split == "test" else "images_background")
    alphabets = sorted(p for p in part.iterdir() if p.is_dir()) if part.is_dir() else []
    if not alphabets:
        raise FileNotFoundError(
            f"omniglot: {part} holds no alphabets; data_dir must hold images_background/ and "
            "images_evaluation/, unpacked"
        )
    if split != "test":
        validation = alphabets[OMNIGLOT_VAL_EVERY - 1 :: OMNIGLOT_VAL_EVERY]
        alphabets = [a for a in alphabets if (a in validation) == (split == "val")]
    files = {
        f"{character.parent.name}/{character.name}": sorted(character.glob("*.png"))
        for alphabet in alphabets
        for character in sorted(p for p in alphabet.iterdir() if p.is_dir())
    }
    return _source(files, "L", invert=True)


DATASETS = {
    "glyphs": Dataset(glyphs.IMAGE_SIZE),
    "mini-imagenet": Dataset(84, mini_imagenet_source),
    "omniglot": Dataset(28, omniglot_source),  # Vinyals et al. 2016 use 28 x 28
}


def _source(files: dict[str, list[Path]], mode: str, invert: bool = False) -> Source:
    return Source(
        [file for of_class in files.values() for file in of_class],
        tuple(files),
        np.array([len(of_class) for of_class in files.values()], dtype=np.int64),
        mode,
        invert,
    )


def _source_key(source: Source) -> str:
    """Digest of names and sizes of the image files: reading them all would cost a minute."""
    digest = hashlib.sha256(json.dumps([source.class_names, source.class_sizes.tolist()]).encode())
    for file in source.files:
        try:
            digest.update(f"{file.parent.name}/{file.name} {file.stat().st_size}\n".encode())
        except OSError as error:
            raise FileNotFoundError(f"{file}: listed, but not there; complete the data") from error
    return digest.hexdigest()


def _decode(source: Source, size: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    channels = len(Image.new(source.mode, (1, 1)).getbands())
    images = np.empty((len(source.files), channels, size, size), dtype=np.uint8)

    def decode(row: int) -> None:
        images[row] = _read_image(source.files[row], source.mode, size)

    # Pillow releases the interpreter's lock while it decodes, so threads keep all cores busy.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(decode, range(len(images)))
        for _ in tqdm(
            rows, "reading images", len(images), mininterval=2, disable=len(images) < 5000
        ):
            pass
    return 255 - images if source.invert else images, source.class_names, source.class_sizes


def _read_image(file: Path, mode: str, size: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return _resized(image.convert(mode), size)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file}: not a readable image ({error}); replace it") from error


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """[channels, size, size]; Pillow's bilinear filter averages where it makes smaller."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _draw_glyphs(split: str, size: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    drawn, names = glyphs.draw_split(split)
    images = np.stack(
        [_resized(Image.fromarray(image), size) for image in drawn.reshape(-1, 28, 28)]
    )
    return images, names, np.full(len(names), drawn.shape[1])


def _fingerprint(images: np.ndarray, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps([images.shape, names]).encode())
    digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()[:16]


def _cache_folder(cache_dir: str | Path | None) -> Path:
    given = cache_dir or os.environ.get("NEGMETA_CACHE")
    return Path(given) if given else user_cache_path("negmeta")


def _read_cache(path: Path) -> ImageSet:
    groups, metadata = runs.read_tensors(path)
    return ImageSet(
        groups["data"]["images"],
        tuple(metadata["class_names"]),
        np.array(metadata["class_sizes"], dtype=np.int64),
        metadata["fingerprint"],
    )
