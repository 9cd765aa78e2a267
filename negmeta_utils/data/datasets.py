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

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negmeta_utils.data import archives, containers, glyphs, image_trees, parquet
from negmeta_utils.data.layouts import SPLITS, Dataset, Layout
from negmeta_utils.data.names import one_line
from negmeta_utils.storage import paths

if TYPE_CHECKING:
    from negmeta_utils.episodes import ImageSet

FOLDER = "folder:"


DATASETS = {
    "glyphs": Dataset(
        "grey characters drawn from fonts, 28x28, embedded", glyphs.IMAGE_SIZE, mode="L"
    ),
    "mini-imagenet": Dataset(
        "64, 16 and 20 classes of 600 colour images, 84x84",
        84,
        (
            image_trees.CSV, image_trees.WNID_FOLDERS, containers.CACHE_PICKLES,
            containers.METAOPTNET, parquet.PARQUET,
        ),
        ((64, 16, 20), 600),
    ),
    "cifar-fs": Dataset(
        "64, 16 and 20 classes of 600 colour images, 32x32",
        32,
        (image_trees.BERTINETTO, image_trees.CIFAR_FOLDERS, containers.CIFAR_PYTHON),
        ((64, 16, 20), 600),
    ),
    "omniglot": Dataset(
        "1623 handwritten characters, 20 drawings each, 105x105, used at 28x28",
        28,  # as Vinyals et al. 2016
        (image_trees.OMNIGLOT,),
        ((806, 158, 659), 20),
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
) -> "ImageSet":
    """One split of a named data set, on the CPU, mapped from the cache.

    image_size: height and width in pixels; None is the data set's usual one. data_dir: the data
    set's folder, its parent, or an archive or file of it; None is the environment variable
    NEGMETA_DATA. cache_dir: None is NEGMETA_CACHE, or the user's cache directory. Where a split
    is not cached, all of the data set is read, so that a fault anywhere in it shows at once.
    Raises ValueError for an unknown name or split and for data that are not what they should be,
    FileNotFoundError for data that are not there, OSError for a cache that cannot be written.
    """
    from negmeta_utils.data import cache, preparing  # torch takes seconds

    dataset = find_dataset(name)
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: not one of {', '.join(SPLITS)}")
    size = dataset.image_size if image_size is None else image_size
    if size < 1:
        raise ValueError(f"image_size={image_size}: must be at least 1, or None")
    with one_line(name):
        source = locate(name, data_dir) if dataset.layouts else None
        folder = paths.cache_folder(cache_dir)
        wanted = preparing.Wanted(name, dataset, size, source, folder)
        path = preparing.path_of(wanted, split)
        images = cache.kept(path)
        if images is None:
            with preparing.locked(folder):
                images = cache.kept(path)  # another process may have filled it meanwhile
                if images is None:
                    preparing.fill(wanted, split)
                    images = cache.read(path)
        return images


def find_dataset(name: str) -> Dataset:
    """The data set of that name. Raises ValueError for an unknown one."""
    if name.startswith(FOLDER):
        return ANY_FOLDER
    if name not in DATASETS:
        raise ValueError(f"dataset={name!r}: not one of {', '.join(DATASETS)} or {FOLDER}PATH")
    return DATASETS[name]


def locate(name: str, data_dir: str | None = None) -> Path:
    """The folder or archive of data set `name`.

    Relative paths, in data_dir and NEGMETA_DATA too, are from the working directory. Raises
    FileNotFoundError, saying what to set, and ValueError for what is neither a folder nor an
    archive nor a file of the data set.
    """
    if name.startswith(FOLDER):
        parameter, given = f"dataset={name!r}", name.removeprefix(FOLDER)
    elif data_dir:
        parameter, given = "data_dir", data_dir
    else:
        parameter, given = "NEGMETA_DATA", os.environ.get("NEGMETA_DATA", "")
    if not given:
        raise FileNotFoundError(
            f"{name}: set data_dir, or the variable NEGMETA_DATA, to the folder that holds "
            f"{name!r}; docs/data.md says where to get it"
        )
    path = paths.resolve(given)
    if not path.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist; correct {parameter}")
    if not path.is_dir():
        return place_of(path, find_dataset(name).layouts)
    return _named_in(path, name) if not name.startswith(FOLDER) else path


def content_of(name: str) -> str:
    """`preparing.content_of` of the data set `folder:PATH`. Raises as it and as `locate`."""
    from negmeta_utils.data import preparing

    return preparing.content_of(locate(name), ANY_FOLDER)


def place_of(path: Path, candidates: Sequence[Layout]) -> Path:
    """What holds the data set of a file: the file itself where it is an archive, else its folder.
    Raises ValueError for a file of no data set, which must not stand for what lies beside it."""
    if archives.is_archive(path):
        return path
    for layout in candidates:
        if path.is_file() and any(path in paths for paths in layout.find(path.parent).values()):
            return path.parent
    raise ValueError(
        f"{path}: neither a folder, nor an archive that is read ({', '.join(archives.SUFFIXES)}), "
        "nor a file of a data set; unpack it, and name the folder"
    )


def _named_in(folder: Path, name: str) -> Path:
    """The folder or archive in `folder` that is called like the data set; else `folder` itself."""
    for path in [folder / name, *(folder / f"{name}{end}" for end in archives.SUFFIXES)]:
        if path.is_dir() or archives.is_archive(path):
            return path
    for path in [folder / name, *(folder / f"{name}{end}" for end in archives.OTHERS)]:
        if os.path.lexists(path):
            raise ValueError(
                f"{path}: neither a folder nor an archive that is read; unpack it there, or pack "
                f"it as one of {', '.join(archives.SUFFIXES)}"
            )
    return folder
