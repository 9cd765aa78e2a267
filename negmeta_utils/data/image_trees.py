"""Layouts in which every image is a file of its own."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

from negmeta_utils.data.class_lists import CIFAR_FS
from negmeta_utils.data.layouts import Layout, Split, named, split_of, subfolders

SUFFIXES = (".jpg", ".jpeg", ".png")
# Omniglot has no official validation split: every sixth of the background's thirty alphabets.
OMNIGLOT_VAL_EVERY = 6


def _csv_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder, "{}.csv") if (folder / "images").is_dir() else {}


def _read_csv(parts: list[Path], split: str) -> Split:
    (table,) = parts
    folder = str(table.parent / "images")
    names: dict[str, list[str]] = {}
    for row in _rows(table):
        if not row.get("filename") or not row.get("label"):
            raise ValueError(f"{table}: a row without filename or label: {row}; correct it")
        names.setdefault(row["label"], []).append(row["filename"])
    for label, files in names.items():
        if len(set(files)) < len(files):
            raise ValueError(f"{table}: class {label} names a file twice; correct it")
    images = {c: [os.path.join(folder, f) for f in sorted(of)] for c, of in names.items()}
    return split_of(images, table)


def _rows(table: Path) -> list[dict]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: not a table in UTF-8 ({error}); correct it") from error


def _class_folders(accepted: Callable[[str], object]) -> Callable[[Path], dict[str, list[Path]]]:
    """Finds splits as folders of class folders, where every class has an accepted name."""

    def find(folder: Path) -> dict[str, list[Path]]:
        parts = {s: paths for s, paths in named(folder, "{}").items() if subfolders(paths[0])}
        classes = [c.name for paths in parts.values() for c in subfolders(paths[0])]
        return parts if all(map(accepted, classes)) else {}

    return find


def _read_class_folders(parts: list[Path], split: str) -> Split:
    (folder,) = parts
    return split_of({c.name: _images(c) for c in subfolders(folder)}, folder)


def _bertinetto_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder / "splits" / "bertinetto", "{}.txt") if (folder / "data").is_dir() else {}


def _read_bertinetto(parts: list[Path], split: str) -> Split:
    (listed,) = parts
    folders = [listed.parents[2] / "data" / name for name in listed.read_text().split()]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: listed in {listed.name}, but not there; add it")
    return split_of({folder.name: _images(folder) for folder in folders}, listed)


def _omniglot_parts(folder: Path) -> dict[str, list[Path]]:
    background = subfolders(folder / "images_background")
    val = background[OMNIGLOT_VAL_EVERY - 1 :: OMNIGLOT_VAL_EVERY]
    parts = {
        "train": [alphabet for alphabet in background if alphabet not in val],
        "val": val,
        "test": subfolders(folder / "images_evaluation"),
    }
    return {split: alphabets for split, alphabets in parts.items() if alphabets}


def _read_omniglot(parts: list[Path], split: str) -> Split:
    characters = [character for alphabet in parts for character in subfolders(alphabet)]
    images = {f"{c.parent.name}/{c.name}": _images(c) for c in characters}
    return split_of(images, parts[0].parent)


def _images(folder: Path) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
    return [os.path.join(folder, name) for name in names if name[0] != "."]


CSV = Layout(
    "images/*.jpg with train.csv, val.csv and test.csv (filename,label)",
    _csv_parts, _read_csv, of_files=True,
)  # fmt: skip
WNID_FOLDERS = Layout(
    "{train,val,test}/WNID/*.jpg",
    _class_folders(re.compile(r"n\d{8}").fullmatch), _read_class_folders, of_files=True,
)  # fmt: skip
CIFAR_FOLDERS = Layout(
    "{train,val,test}/CLASS/*.png",
    _class_folders(sum(CIFAR_FS.values(), []).__contains__), _read_class_folders, of_files=True,
)  # fmt: skip
ANY_FOLDERS = Layout(
    "{train,val,test}/CLASS/*.{png,jpg,jpeg}",
    _class_folders(str), _read_class_folders, of_files=True,
)  # fmt: skip
BERTINETTO = Layout(
    "data/CLASS/*.png with splits/bertinetto/{train,val,test}.txt",
    _bertinetto_parts, _read_bertinetto, of_files=True,
)  # fmt: skip
OMNIGLOT = Layout(
    "images_background/ and images_evaluation/ of ALPHABET/characterNN/*.png",
    _omniglot_parts, _read_omniglot, of_files=True,
)  # fmt: skip
