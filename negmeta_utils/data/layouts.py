"""Data sets on disk, recognised by what lies there and read into one order.

Classes are in the order of their names. Images of a class are in the order of their file names,
which is also that of the rows in Ravi & Larochelle's CSV files. Pickles and Parquet keep no file
names: there the rows of a class stay in their order, which is the same where the file was made
from the images in order.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")
ALIASES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}

# A file, a file's content, or pixels: uint8 [height, width, 3]. Files are texts, because tens of
# thousands of them are listed whenever a data set is loaded, and paths take seconds.
Image = str | bytes | np.ndarray


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

    title: in words, with the names to be expected. find: of a folder, what each split is read
    from; empty where the folder is not laid out so. read: one split from these paths.
    of_files: whether every image is a file of its own, so that `read` opens none of them.
    """

    title: str
    find: Callable[[Path], dict[str, list[Path]]]
    read: Callable[[list[Path], str], Split]
    of_files: bool


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


class Found(NamedTuple):
    """A data set on disk: its layout, the folder, and what each split is read from."""

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
            Found(layout, place, parts)
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
            raise ValueError(f"{content.origin}: no images in {where}; complete the data")
    _refuse_shared(found.folder, {s: c.class_names for s, c in splits.items()})
    return splits


def split_of(images: dict[str, list], origin: Path) -> Split:
    """A split of images by class, its classes put in the order of their names."""
    names = tuple(sorted(images))
    return Split(
        [image for name in names for image in images[name]],
        names,
        np.array([len(images[name]) for name in names], dtype=np.int64),
        origin,
    )


def grouped(images: Iterable[Image], names: Iterable[str]) -> dict[str, list]:
    """Images by the class that each row names, in the order of rows."""
    groups: dict[str, list] = {}
    for image, name in zip(images, names, strict=True):
        groups.setdefault(name, []).append(image)
    return groups


def named(folder: Path, *patterns: str) -> dict[str, list[Path]]:
    """Of each split, the one path in `folder` whose name is a pattern with the split's name put
    in; splits without one are left out."""
    parts = {}
    for split in SPLITS:
        paths = [folder / p.format(alias) for p in patterns for alias in ALIASES[split]]
        parts[split] = [path for path in paths if path.exists()][:1]
    return {split: paths for split, paths in parts.items() if paths}


def subfolders(folder: Path) -> list[Path]:
    """Folders in `folder`, by name; hidden ones and what macOS puts in archives are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return [folder / name for name in sorted(names) if name[0] != "." and name != "__MACOSX"]


def _missing_split(found: Found) -> Exception:
    """The error for splits that are not there, or the worse one that may be behind it."""
    _refuse_shared(found.folder, {s: found.read(s).class_names for s in found.parts})
    missing = " and ".join(split for split in SPLITS if split not in found.parts)
    return FileNotFoundError(
        f"{found.folder}: no {missing} split beside {' and '.join(found.parts)}; complete the "
        f"data: {expected([found.layout])}"
    )


def _refuse_shared(folder: Path, classes: dict[str, tuple[str, ...]]) -> None:
    splits = list(classes)
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            shared = sorted(set(classes[one]) & set(classes[other]))
            if shared and len(shared) == min(len(classes[one]), len(classes[other])):
                raise ValueError(
                    f"{folder}: {one} and {other} hold the same {len(shared)} classes: a split for "
                    "ordinary classification (50,000 and 10,000 images of one list of classes), "
                    "not a few-shot one, whose test classes training never sees; get the split "
                    "of Ravi & Larochelle into 64, 16 and 20 classes"
                )
            if shared:
                raise ValueError(
                    f"{folder}: class {shared[0]} is in {one} and in {other} ({len(shared)} "
                    "shared in all), and splits must share none; correct the data"
                )
