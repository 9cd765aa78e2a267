"""Data sets on disk, recognised by what lies there and read into one order.

Classes are in the order of their names. Images of a class are in the order of their file names,
which is also that of the rows in Ravi & Larochelle's CSV files. Pickles and Parquet keep no file
names: there the rows of a class stay in their order, which is the same where the file was made
from the images in order.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from negmeta_utils.data.names import class_name

SPLITS = ("train", "val", "test")
ALIASES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}

LOOKALIKE = (
    "a split for ordinary classification (50,000 and 10,000 images of one list of classes), not a "
    "few-shot one, whose test classes training never sees; get the split of Ravi & Larochelle "
    "into 64, 16 and 20 classes"
)
OWN_CLASSES = (
    "few-shot splits share none, so that testing is on classes that training never saw; put each "
    "class whole into train, val or test"
)

# A file, a file's content, or pixels: uint8 [height, width, 3]. Files are texts, because tens of
# thousands of them are listed whenever a data set is loaded, and paths take seconds.
Image: TypeAlias = str | bytes | np.ndarray


class Split(NamedTuple):
    """The images of one split, not decoded yet.

    images: in row order. class_names, class_sizes: classes in row order, and how many rows each
    has. origin: what an error names where an image is no file of its own.
    """

    images: list[Image]
    class_names: tuple[str, ...]
    class_sizes: np.ndarray
    origin: Path


class Layout(NamedTuple):
    """One way in which a data set may lie on disk.

    title: in words, with the names to be expected. find: takes a folder, gives each split's paths,
    none where it is not laid out so. read: takes a split's paths and its name, gives the split.
    of_files: whether every image is a file of its own, so that `read` opens none of them.
    """

    title: str
    find: Callable[[Path], dict[str, list[Path]]]
    read: Callable[[list[Path], str], Split]
    of_files: bool


class Dataset(NamedTuple):
    """A named data set.

    about: what it is, in a line. image_size: its usual one. layouts: how it may lie on disk; none
    if it is embedded. published: how many classes each split has, in the order of SPLITS, and how
    many images each class; none where there is no such number. mode: Pillow's "RGB" or "L". invert:
    whether ink is dark in the files.
    """

    about: str
    image_size: int
    layouts: tuple[Layout, ...] = ()
    published: tuple[tuple[int, ...], int] = ((), 0)
    mode: str = "RGB"
    invert: bool = False


class Found(NamedTuple):
    """A data set on disk: its name, its layout, the folder, and what each split is read from."""

    name: str
    layout: Layout
    folder: Path
    parts: dict[str, list[Path]]

    def read(self, split: str) -> Split:
        return self.layout.read(self.parts[split], split)


class UnknownLayout(FileNotFoundError):
    """Nothing in a folder looks like the data set."""


def find(name: str, layouts: Sequence[Layout], folder: Path) -> Found:
    """Data set `name` in `folder` or, where it is not there, in one of its subfolders.

    Raises UnknownLayout where there is nothing like it, FileNotFoundError where a split is
    missing, ValueError where it is not the few-shot data set or is there more than once.
    """
    for places in ([folder], subfolders(folder)):
        found = [
            Found(name, layout, place, parts)
            for place in places
            for layout in layouts
            if (parts := layout.find(place))
        ]
        whole = [f for f in found if set(f.parts) == set(SPLITS)]
        if len({f.folder for f in whole}) > 1:
            names = " and ".join(sorted({f.folder.name for f in whole}))
            raise ValueError(f"{folder}: holds {name} more than once, in {names}; name one of them")
        if whole:
            return whole[0]
        if found:
            raise _missing_split(found[0])
    there = ", ".join(sorted(n for n in os.listdir(folder) if n[0] != ".")[:5]) or "nothing"
    raise UnknownLayout(f"{folder}: no {name} here (found {there}); {expected(layouts)}")


def expected(layouts: Sequence[Layout]) -> str:
    """What a folder should hold, in words."""
    return "expected " + ", or ".join(layout.title for layout in layouts)


def read_all(found: Found) -> dict[str, Split]:
    """Every split. Raises ValueError where splits share classes, or one has no images."""
    splits = {split: found.read(split) for split in SPLITS}
    for split, content in splits.items():
        if not len(content.class_sizes) or not content.class_sizes.all():
            empty = [
                c for c, n in zip(content.class_names, content.class_sizes, strict=True) if not n
            ]
            where = f"class {empty[0]} of the {split} split" if empty else f"the {split} split"
            read = " (read are .jpg, .jpeg and .png)" if found.layout.of_files else ""
            raise ValueError(f"{content.origin}: no images in {where}{read}; complete the data")
    _refuse_shared(found, splits)
    return splits


def split_of(images: dict[str, list], origin: Path) -> Split:
    """A split of images by class, its classes put in the order of their names.

    Raises ValueError for two names that look alike, most likely of one class.
    """
    raw: dict[str, str] = {}
    for name in sorted(images):
        as_shown = class_name(name)
        if as_shown in raw:
            raise ValueError(
                f"{origin}: two classes are called {as_shown}, as {raw[as_shown]!a} and {name!a}; "
                "join them or rename one"
            )
        raw[as_shown] = name
    names = tuple(sorted(raw))
    return Split(
        [image for name in names for image in images[raw[name]]],
        names,
        np.array([len(images[raw[name]]) for name in names], dtype=np.int64),
        origin,
    )


def grouped(images: Iterable[Image], names: Iterable[str]) -> dict[str, list]:
    """Images by class, in their order. names: the class of each image."""
    groups: dict[str, list] = {}
    for image, name in zip(images, names, strict=True):
        groups.setdefault(name, []).append(image)
    return groups


def named(
    folder: Path, *patterns: str, is_there: Callable[[Path], bool] = Path.is_file
) -> dict[str, list[Path]]:
    """Each split's path in `folder`, called like one of `patterns` with a name of the split put in;
    splits that are not there are left out. Raises ValueError for one that is there by two names."""
    parts = {}
    for split in SPLITS:
        paths = []
        for pattern in patterns:
            by_alias = [folder / pattern.format(alias) for alias in ALIASES[split]]
            there = [path for path in by_alias if is_there(path)]
            if len(there) > 1:
                names = " and ".join(path.name for path in there)
                raise ValueError(f"{folder}: {names} are both there; remove the one not meant")
            paths += there
        parts[split] = paths[:1]
    return {split: paths for split, paths in parts.items() if paths}


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder`, by name; hidden ones and what macOS puts in archives are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if os.path.isdir(entry.path)]
    return [folder / name for name in sorted(names) if name[0] != "." and name != "__MACOSX"]


def _missing_split(found: Found) -> Exception:
    """The error for splits that are not there, or the worse one that may be behind it."""
    _refuse_shared(found, {s: found.read(s) for s in found.parts})
    missing = " and ".join(split for split in SPLITS if split not in found.parts)
    return FileNotFoundError(
        f"{found.folder}: no {missing} split beside {' and '.join(found.parts)}; complete the "
        f"data: {expected([found.layout])}"
    )


def _real(files: Iterable) -> Counter[str]:
    """How often each file is there, by where its folder really lies, which links may call by
    several names."""
    place = functools.cache(os.path.realpath)
    parts = map(os.path.split, map(str, files))
    return Counter(os.path.join(place(folder), name) for folder, name in parts)


def _refuse_shared(found: Found, splits: dict[str, Split]) -> None:
    of_files = found.layout.of_files
    places = {s: _real(content.images) for s, content in splits.items()} if of_files else {}
    for split, real in places.items():
        if again := [place for place, n in real.items() if n > 1]:
            raise ValueError(f"{min(again)}: is twice in {split}, by a link; correct the data")
    for one, other in combinations(splits, 2):
        classes = [set(splits[s].class_names) for s in (one, other)]
        shared = sorted(set.intersection(*classes))
        if shared and len(shared) == min(map(len, classes)):
            hint = LOOKALIKE if found.name == "mini-imagenet" else OWN_CLASSES
            raise ValueError(
                f"{found.folder}: {one} and {other} hold the same {len(shared)} classes: {hint}"
            )
        if shared:
            raise ValueError(
                f"{found.folder}: class {shared[0]} is in {one} and in {other} ({len(shared)} "
                "shared in all), and splits must share none; correct the data"
            )
        if of_files and (twice := places[one] & places[other]):
            raise ValueError(f"{min(twice)}: is in {one} and in {other}; correct the data")
