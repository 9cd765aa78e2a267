"""Layouts in which every image is a file of its own."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

from negmeta_utils.data.class_lists import CIFAR_FS
from negmeta_utils.data.layouts import Layout, Split, named, split_of, subfolders
from negmeta_utils.data.names import shown, stays_below

SUFFIXES = (".jpg", ".jpeg", ".png")
LONGEST_TABLE = 10**8  # bytes
# Omniglot has no official validation split: every sixth of the background's thirty alphabets.
OMNIGLOT_VAL_EVERY = 6


def _csv_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder, "{}.csv") if (folder / "images").is_dir() else {}


def _read_csv(parts: list[Path], split: str) -> Split:
    (table,) = parts
    folder = str(table.parent / "images")
    class_of: dict[str, str] = {}
    for row in _rows(table):
        file, label = (str(row.get(column) or "").strip() for column in ("filename", "label"))
        if not file or not label:
            raise ValueError(f"{table}: a row without filename or label: {row}; correct it")
        if not stays_below(file):
            raise ValueError(f"{table}: {file} leads out of images/; correct it")
        file = os.path.normpath(file)
        if file in class_of:
            where = f"class {label}" if label == class_of[file] else f"{class_of[file]} and {label}"
            raise ValueError(f"{table}: {where} names a file twice, {file}; correct it")
        class_of[file] = label
    images: dict[str, list[str]] = {}
    for file in sorted(class_of):
        images.setdefault(class_of[file], []).append(os.path.join(folder, file))
    return split_of(images, table)


def _rows(table: Path) -> list[dict]:
    if table.stat().st_size > LONGEST_TABLE:
        raise ValueError(f"{table}: of {table.stat().st_size} bytes, no list of images; correct it")
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, skipinitialspace=True)
            columns = rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
            if columns.count("filename") != 1 or columns.count("label") != 1:
                raise ValueError(
                    f"{table}: its first line names the columns {shown(', '.join(columns))[:80]}; "
                    "correct it to filename,label"
                )
            return list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table}: not a table in UTF-8 ({error}); correct it") from error


def _class_folders(accepted: Callable[[str], object]) -> Callable[[Path], dict[str, list[Path]]]:
    """Finds splits as folders of class folders, where every class has an accepted name."""

    def find(folder: Path) -> dict[str, list[Path]]:
        parts = {
            s: paths
            for s, paths in named(folder, "{}", is_there=Path.is_dir).items()
            if subfolders(paths[0])
        }
        classes = [c.name for paths in parts.values() for c in subfolders(paths[0])]
        return parts if all(map(accepted, classes)) else {}

    return find


def _read_class_folders(parts: list[Path], split: str) -> Split:
    (folder,) = parts
    return split_of({c.name: _images(c) for c in _classes(folder)}, folder)


def _bertinetto_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder / "splits" / "bertinetto", "{}.txt") if (folder / "data").is_dir() else {}


def _read_bertinetto(parts: list[Path], split: str) -> Split:
    (listed,) = parts
    names = listed.read_text(encoding="utf-8").split()
    folders = [listed.parents[2] / "data" / name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not stays_below(name) or names.count(name) > 1:
            raise ValueError(f"{listed}: {name} leads elsewhere or is there twice; correct it")
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: listed in {listed.name}, but not there; add it")
    return split_of({folder.name: _images(folder) for folder in folders}, listed)


def _omniglot_parts(folder: Path) -> dict[str, list[Path]]:
    background = subfolders(_unwrapped(folder / "images_background"))
    val = background[OMNIGLOT_VAL_EVERY - 1 :: OMNIGLOT_VAL_EVERY]
    parts = {
        "train": [alphabet for alphabet in background if alphabet not in val],
        "val": val,
        "test": subfolders(_unwrapped(folder / "images_evaluation")),
    }
    return {split: alphabets for split, alphabets in parts.items() if alphabets}


def _unwrapped(folder: Path) -> Path:
    """Archives are often unpacked into a folder of their own name, so that it is there twice."""
    within = folder / folder.name
    return within if within.is_dir() else folder


def _read_omniglot(parts: list[Path], split: str) -> Split:
    characters = [character for alphabet in parts for character in _classes(alphabet)]
    images = {f"{c.parent.name}/{c.name}": _images(c) for c in characters}
    return split_of(images, parts[0].parent)


def _classes(folder: Path) -> list[Path]:
    """The folders of classes. Raises FileNotFoundError for a link to one that leads nowhere."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and entry.name[0] != "." and not os.path.exists(entry.path):
                raise FileNotFoundError(
                    f"{entry.path}: a link that leads nowhere; mend it or remove it"
                )
    return subfolders(folder)


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
