"""Makes the cache files of a data set: one for each split, whole or not there at all."""

import errno
import fcntl
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from negmeta_utils.data import (
    accounting,
    archives,
    bounds,
    cache,
    decoding,
    glyphs,
    layouts,
    scratch,
)
from negmeta_utils.data.layouts import SPLITS, Dataset, Found, Split
from negmeta_utils.data.names import shown
from negmeta_utils.storage import atomic

FORMAT = 2  # raise it with any change of what a cache file holds
LOCK = ".lock"  # in the cache folder
SAMPLED = 500  # files of a split, at most, that `content_of` reads


class Wanted(NamedTuple):
    """A request for images: a data set's name, what is known of it, the images' height and width
    in pixels, where the data set lies (None where it is embedded), and the folder of cache files.
    """

    name: str
    dataset: Dataset
    size: int
    source: Path | None
    folder: Path


def path_of(wanted: Wanted, split: str) -> Path:
    """The cache file of one split, named by what it is made from."""
    name, _, size, source, folder = wanted
    if source is None:
        made_from = glyphs.source_fingerprint()
    elif archives.is_archive(source):
        made_from = _stamps([str(source)])
    else:
        made_from = _source_key(layouts.find(name, wanted.dataset.layouts, source), split)
    label, dataset = name.partition(":")[0], wanted.dataset
    # The place, too: files of two data sets may have names, lengths and times in common.
    place = source and os.path.realpath(source)
    about = f"{FORMAT} {label} {split} {size} {dataset.mode} {dataset.invert} {place} {made_from}"
    key = hashlib.sha256(os.fsencode(about)).hexdigest()
    return folder / f"{label}-{split}-{size}-{key[:16]}.safetensors"


def _source_key(found: Found, split: str) -> str:
    """Digest of what a split is made from: its classes, where they are told by files alone, and
    its files."""
    if not found.layout.of_files:
        return _stamps(map(str, found.parts[split]))
    content = found.read(split)
    return (
        f"{content.class_names} {content.class_sizes.tolist()} {_stamps(map(str, content.images))}"
    )


def _stamps(files: Iterable[str]) -> str:
    """Digest of the files' names, sizes and times of last change: reading them all would take as
    long as to decode them."""
    digest = hashlib.sha256()
    for file in files:
        about = _of_regular(file)
        name = os.fsencode(os.path.basename(file))  # which need not be UTF-8
        digest.update(b"%s %d %d\n" % (name, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


def _of_regular(file: str) -> os.stat_result:
    try:
        about = os.stat(file)
    except OSError as error:
        raise decoding.refused(file, error) from error
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{file}: neither a file nor a link to one; remove it")
    return about


def content_of(source: Path, dataset: Dataset) -> str:
    """Digest of the images in a folder or archive, the same wherever it lies and whenever it was
    copied: of classes, of the files' names and lengths, and of up to `SAMPLED` files a split, all
    if there are fewer; to read every one may take minutes. An archive is read whole.

    Raises as `layouts.find`, and OSError.
    """
    if archives.is_archive(source):
        with source.open("rb") as archive:
            return hashlib.file_digest(archive, "sha256").hexdigest()
    found = layouts.find("data set", dataset.layouts, source)
    digest = hashlib.sha256()
    for split in SPLITS:
        images, names, sizes, _ = found.read(split)
        files = [(os.path.basename(file), _of_regular(file).st_size) for file in map(str, images)]
        digest.update(json.dumps([names, sizes.tolist(), files]).encode())
        for file in images[:: 1 + len(images) // SAMPLED]:
            digest.update(Path(str(file)).read_bytes())
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The cache folder is filled by one process at a time; the others wait here."""
    with ExitStack() as stack:
        with _writing(folder):
            file = stack.enter_context(_lock_file(folder / LOCK))
        atomic.lock(file, fcntl.LOCK_EX)
        yield


def _lock_file(path: Path) -> IO:
    """Open: for reading alone where another user made it. Raises OSError."""
    try:
        return path.open("a")
    except PermissionError:
        if not path.exists():
            raise
        return path.open()
    except FileNotFoundError as error:  # as of a folder in /proc
        raise PermissionError(errno.EACCES, "no file can be made there") from error


def fill(wanted: Wanted, split: str) -> None:
    """Write the cache file of a split. Where images have to be decoded, the files of all splits
    that are missing are written, and appear together in the end.

    Raises ValueError and FileNotFoundError for wrong data, OSError for the cache folder.
    """
    if wanted.source is None:
        path = path_of(wanted, split)
        images, names, sizes = _glyphs(split, wanted.size)
        with _writing(wanted.folder), scratch.folder(wanted.folder) as side:
            cache.write(side / path.name, path.name, images, names, sizes)
            _publish(side, wanted.folder)
        return
    paths = {s: path_of(wanted, s) for s in SPLITS}
    with archives.opened(wanted.source, wanted.folder) as folder:
        found = layouts.find(wanted.name, wanted.dataset.layouts, folder)
        splits = layouts.read_all(found)
        _say_what_is_not_there(wanted, found, splits)
        missing = {s: splits[s] for s, path in paths.items() if cache.kept(path) is None}
        del splits
        _refuse_too_large(missing, wanted)
        with _writing(wanted.folder), scratch.folder(wanted.folder) as side:
            for s in list(missing):
                _write_decoded(side, paths[s].name, missing.pop(s), wanted, s)
            if {s: path_of(wanted, s) for s in SPLITS} != paths:
                raise ValueError(f"{wanted.source}: changed while it was read; call again")
            _publish(side, wanted.folder)


def _say_what_is_not_there(wanted: Wanted, found: Found, splits: dict[str, Split]) -> None:
    """A line each where files that may be images are not read, and where a data set is not as
    it was published: it may be less than it seems, or another one."""
    listed = [left for left in accounting.left_out(found, splits) if left.is_image]
    if listed:
        print(shown(f"{wanted.source}: {accounting.left_out_in_words(listed)}"), file=sys.stderr)
    if unlike := accounting.unlike_published(wanted.dataset, splits):
        print(shown(f"{found.folder}: not as published: {unlike}"), file=sys.stderr)


def _write_decoded(side: Path, name: str, content: Split, wanted: Wanted, split: str) -> None:
    images = decoding.decode(content, wanted.dataset.mode, wanted.size, f"reading {split}")
    if wanted.dataset.invert:
        np.subtract(255, images, out=images)
    cache.write(side / name, name, images, content.class_names, content.class_sizes)


def _publish(side: Path, folder: Path) -> None:
    """Give all cache files in `side` their place, once they are on the disk."""
    written = sorted(side.glob("*.safetensors"))
    for file in written:
        with file.open("rb") as whole:
            os.fsync(whole.fileno())
    for file in written:
        if (folder / file.name).exists():
            said = "not what was written there once; made again"
            print(f"{folder / file.name}: {said}", file=sys.stderr)
        os.replace(file, folder / file.name)


def _refuse_too_large(splits: dict[str, Split], wanted: Wanted) -> None:
    channels = len(Image.new(wanted.dataset.mode, (1, 1)).getbands())
    each = channels * wanted.size**2
    for split, content in splits.items():
        _refuse_beyond_memory(len(content.images), split, each, wanted.size)
    total = each * sum(len(content.images) for content in splits.values())
    bounds.refuse_beyond_disk(total, wanted.folder, f"the images at image_size={wanted.size}")


def _refuse_beyond_memory(n_images: int, split: str, each: int, size: int) -> None:
    what = f"image_size={size}: the {n_images} images of the {split} split"
    bounds.refuse_beyond_memory(n_images * each, what, "choose a smaller image_size")


def _glyphs(split: str, size: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    drawn, names = glyphs.read_split(split)
    _refuse_beyond_memory(len(names) * drawn.shape[1], split, 2 * size**2, size)
    images = np.stack(
        [decoding.resized(Image.fromarray(image), size) for image in drawn.reshape(-1, 28, 28)]
    )
    return images, names, np.full(len(names), drawn.shape[1])


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes the cache folder; what goes wrong in writing to it becomes one line."""
    try:
        with scratch.made(folder):
            yield
    except (FileNotFoundError, ValueError):
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(
            f"{folder}: the cache of decoded images cannot be written ({error.strerror}); make "
            "room or grant write permission, or set NEGMETA_CACHE to another folder"
        ) from error
