"""Named data sets: images by class, decoded once and cached as one array a split.

    glyphs         embedded (see `glyphs`)
    mini-imagenet  64, 16 and 20 classes x 600, in any of the layouts that it is passed around in
    cifar-fs       64, 16 and 20 classes x 600 of CIFAR-100, split by Bertinetto et al.
    omniglot       the official folders; ink is turned bright on black, and characters are not
                   rotated into further classes
    folder:PATH    any images, as {train,val,test}/CLASS/*.{png,jpg,jpeg}

Each may be a folder or an archive (.tar.gz, .tgz, .tar, .zip); `layouts` says how they are
recognised and in which order they are read.

The cache lies outside the clone. A file's name tells what it was made from, so a source that
changes is another file, and a file that does not read back whole is made again.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError

from negmeta_utils import runs, storage
from negmeta_utils.data import archives, containers, decoding, glyphs, image_trees, layouts
from negmeta_utils.data.layouts import SPLITS, Found, Layout
from negmeta_utils.episodes import ImageSet

CACHE_FORMAT = 2  # raise it with any change of what a cache file holds
FOLDER = "folder:"
LOCK = ".lock"  # in the cache folder


class Dataset(NamedTuple):
    """A named data set.

    about: what it is, in a line. image_size: its usual one. layouts: how it may lie on disk; none
    if it is embedded. mode: Pillow's "RGB" or "L". invert: whether ink is dark in the files.
    """

    about: str
    image_size: int
    layouts: tuple[Layout, ...] = ()
    mode: str = "RGB"
    invert: bool = False


DATASETS = {
    "glyphs": Dataset("grey characters drawn from fonts, 28x28, embedded", glyphs.IMAGE_SIZE),
    "mini-imagenet": Dataset(
        "64, 16 and 20 classes of 600 colour images, 84x84",
        84,
        (
            image_trees.CSV, image_trees.WNID_FOLDERS, containers.CACHE_PICKLES,
            containers.METAOPTNET, containers.PARQUET,
        ),
    ),
    "cifar-fs": Dataset(
        "64, 16 and 20 classes of 600 colour images, 32x32",
        32,
        (image_trees.BERTINETTO, image_trees.CIFAR_FOLDERS, containers.CIFAR_PYTHON),
    ),
    "omniglot": Dataset(
        "1623 handwritten characters, 20 drawings each, 105x105, used at 28x28",
        28,  # as Vinyals et al. 2016
        (image_trees.OMNIGLOT,),
        mode="L",
        invert=True,
    ),
}  # fmt: skip
ANY_FOLDER = Dataset("your own images, 84x84 unless image_size says otherwise", 84,
                     (image_trees.ANY_FOLDERS,))  # fmt: skip


def load(
    name: str,
    split: str,
    image_size: int | None = None,
    data_dir: str | None = None,
    cache_dir: str | Path | None = None,
) -> ImageSet:
    """One split of a named data set, on the CPU, mapped from the cache.

    image_size: height and width in pixels; None is the data set's usual one. data_dir: the data
    set's folder, its parent, or an archive or file of it; None is the environment variable
    NEGMETA_DATA. cache_dir: None is NEGMETA_CACHE, or the user's cache directory. Where a split
    is not cached, all of the data set is read, so that a fault anywhere in it shows at once.
    Raises ValueError for an unknown name or split and for data that are not what they should be,
    FileNotFoundError for data that are not there, OSError for a cache that cannot be written.
    """
    dataset = find_dataset(name)
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: not one of {', '.join(SPLITS)}")
    size = dataset.image_size if image_size is None else image_size
    if size < 1:
        raise ValueError(f"image_size={image_size}: must be at least 1, or None")
    cache = storage.cache_folder(cache_dir)
    source = locate(name, data_dir) if dataset.layouts else None
    path = _cache_path(cache, name, split, size, source)
    if not _is_cached(path, size):
        with _locked(cache):
            if not _is_cached(path, size):  # another process may have filled it meanwhile
                _make_cache(cache, name, split, size, source)
    return _read_cache(path, size)


def find_dataset(name: str) -> Dataset:
    """The data set of that name. Raises ValueError for an unknown one."""
    if name.startswith(FOLDER):
        return ANY_FOLDER
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: not one of {', '.join(DATASETS)} or {FOLDER}PATH")
    return DATASETS[name]


def locate(name: str, data_dir: str | None = None) -> Path:
    """The folder or archive of data set `name`. Raises FileNotFoundError, saying what to set."""
    if name.startswith(FOLDER):
        parameter, given = f"dataset={name!r}", name.removeprefix(FOLDER)
    else:
        parameter, given = "data_dir", data_dir or os.environ.get("NEGMETA_DATA")
    if not given:
        raise FileNotFoundError(
            f"{name}: set data_dir, or the variable NEGMETA_DATA, to the folder that holds "
            f"{name!r}; the README says where to get it"
        )
    path = runs.resolve(given)
    if path.is_file():
        return path if archives.is_archive(path) else path.parent
    if not path.is_dir():
        raise FileNotFoundError(f"{name}: {path} does not exist; correct {parameter}")
    below = [path / name, *(path / f"{name}{suffix}" for suffix in archives.SUFFIXES)]
    return next((p for p in below if p.exists()), path)


def _cache_path(cache: Path, name: str, split: str, size: int, source: Path | None) -> Path:
    """The cache file of one split, named by what it is made from."""
    if source is None:
        made_from = glyphs.source_fingerprint()
    elif archives.is_archive(source):
        made_from = _stamps([str(source)])
    else:
        found = layouts.find(name, find_dataset(name).layouts, source)
        made_from = _source_key(found, split)
    label = "folder" if name.startswith(FOLDER) else name
    key = hashlib.sha256(f"{CACHE_FORMAT} {label} {split} {size} {made_from}".encode()).hexdigest()
    return cache / f"{label}-{split}-{size}-{key[:16]}.safetensors"


def _source_key(found: Found, split: str) -> str:
    """Digest of what a split is made from: its classes, where they are told by files alone, and
    its files."""
    if not found.layout.of_files:
        return _stamps(map(str, found.parts[split]))
    content = found.read(split)
    return f"{content.class_names} {content.class_sizes.tolist()} {_stamps(content.images)}"


def _stamps(files: Iterable[str]) -> str:
    """Digest of the files' names, sizes and times of last change: reading them all would take as
    long as to decode them."""
    digest = hashlib.sha256()
    for file in files:
        try:
            about = os.stat(file)
        except OSError as error:
            raise decoding.refused(file, error) from error
        name = os.fsencode(os.path.basename(file))  # which need not be UTF-8
        digest.update(b"%s %d %d\n" % (name, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """The cache folder is filled by one process at a time; the others wait here."""
    lock = FileLock(cache / LOCK)
    with _writing(cache):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_cache(cache: Path, name: str, split: str, size: int, source: Path | None) -> None:
    """Write the cache file of a split, and of every other split where images have to be decoded."""
    if source is None:
        with _writing(cache):
            _write_cache(_cache_path(cache, name, split, size, None), *_draw_glyphs(split, size))
        return
    dataset = find_dataset(name)
    paths = {s: _cache_path(cache, name, s, size, source) for s in SPLITS}
    with archives.opened(source, cache) as folder:
        _fill_cache(paths, layouts.find(name, dataset.layouts, folder), dataset, size)


def _fill_cache(paths: dict[str, Path], found: Found, dataset: Dataset, size: int) -> None:
    """Decode every split that is not cached; all their files appear in the end, or none does."""
    splits = layouts.read_all(found)
    with _writing(paths["train"].parent), ExitStack() as files:
        for split, path in paths.items():
            content = splits.pop(split)
            if _is_cached(path, size):
                continue
            images = decoding.decode(content, dataset.mode, size, f"reading {split}")
            if dataset.invert:
                np.subtract(255, images, out=images)
            temporary = files.enter_context(storage.replacing(path))
            _write_cache(temporary, images, content.class_names, content.class_sizes)


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Makes the cache folder; what goes wrong in writing to it becomes one line."""
    try:
        with archives.made(cache):
            yield
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{cache}: the cache of decoded images cannot be written ({error}); make room or "
            "give leave to write there, or set NEGMETA_CACHE to another folder"
        ) from error


def _draw_glyphs(split: str, size: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    drawn, names = glyphs.draw_split(split)
    images = np.stack(
        [decoding.resized(Image.fromarray(image), size) for image in drawn.reshape(-1, 28, 28)]
    )
    return images, names, np.full(len(names), drawn.shape[1])


def _write_cache(path: Path, images: np.ndarray, names: tuple[str, ...], sizes: np.ndarray) -> None:
    metadata = {
        "class_names": names,
        "class_sizes": [int(n) for n in sizes],
        "fingerprint": _fingerprint(images, names),
    }
    storage.write_tensors(path, {"data": {"images": torch.from_numpy(images)}}, metadata)


def _fingerprint(images: np.ndarray, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps([images.shape, names]).encode())
    digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()[:16]


def _is_cached(path: Path, size: int) -> bool:
    """Whether a whole cache file is there; one cut short or not ours is to be made again."""
    try:
        _read_cache(path, size)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _read_cache(path: Path, size: int) -> ImageSet:
    """Raises ValueError where the file does not hold images that fit its classes."""
    groups, metadata = storage.read_tensors(path)
    try:
        images, names = groups["data"]["images"], tuple(metadata["class_names"])
        sizes = np.array(metadata["class_sizes"], dtype=np.int64)
        fits = len(names) == len(sizes) and images.shape[2:] == (size, size)
        if not fits or images.dtype != torch.uint8 or len(images) != sizes.sum():
            raise ValueError(f"{path}: images do not fit the classes")
        return ImageSet(images, names, sizes, metadata["fingerprint"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a cache of images") from error
