"""Bad input that is about data: cases for `test_bad_input`.

Whoever runs them sets NEGMETA_CACHE to the folder `cache` below the temporary folder that
`prepare` is given (the kernel's too): one case puts something there that cannot be written to.
"""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import data_makers as make
import numpy as np
import pyarrow
import pyarrow.parquet
from hostile import Case
from PIL import Image

TRAIN = "notebooks/01_train.ipynb"


def tiny_classes(folder: Path) -> make.Classes:
    """Three images of two classes in each split, 16x16, as files below `folder`."""
    generator = np.random.default_rng(0)
    (folder / "made").mkdir()
    classes: make.Classes = {}
    for s, split in enumerate(make.SPLITS):
        classes[split] = {}
        for name in (f"n{s}000000{c}" for c in range(2)):
            classes[split][name] = []
            for i in range(3):
                path = folder / "made" / f"{name}{i:08d}.jpg"
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
                classes[split][name].append(path)
    return classes


def data_set(write: Callable[[Path, make.Classes], None], spoil: Callable[[Path], object]):
    """`prepare` of a case: a data set in one layout, then spoilt; to be checked."""

    def prepare(folder: Path) -> list[str]:
        there = folder / "mini-imagenet"
        write(there, tiny_classes(folder))
        spoil(there)
        return ["data", "check", str(there)]

    return prepare


def without_val(folder: Path) -> None:
    """Removes whatever holds the split."""
    for path in folder.glob("val*"):
        path.rename(folder.parent / f"removed-{path.name}")
    for path in folder.glob("*-val*.pkl"):
        path.unlink()


def first_image(folder: Path) -> Path:
    return sorted(folder.rglob("*.jpg"))[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rename_test_class(folder: Path) -> None:
    """A test class by the name of a training class."""
    (folder / "test" / "n20000000").rename(folder / "test" / "n00000000")


def classes_everywhere(folder: Path) -> None:
    for split in ("val", "test"):
        for number, path in enumerate(sorted((folder / split).iterdir())):
            path.rename(folder / split / f"n0000000{number}")


def write_pickle(folder: Path, content: bytes) -> None:
    (folder / "mini-imagenet-cache-train.pkl").write_bytes(content)


def replaced_pickle(content: bytes):
    """`prepare` of a case: the training split's pickle holds something else."""
    return data_set(make.write_cache_pickles, lambda folder: write_pickle(folder, content))


class Command:
    def __reduce__(self):
        return os.system, ("echo run by a pickle",)


def archive(name: str, spoil: Callable[[Path], object]):
    """`prepare` of a case: an archive made by `spoil` at its path."""

    def prepare(folder: Path) -> list[str]:
        spoil(folder / name)
        return ["data", "check", str(folder / name)]

    return prepare


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = ""):
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as packed:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            packed.addfile(member, io.BytesIO())

    return write


def zip_with(name: str, mode: int = 0o100644):
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as packed:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            packed.writestr(member, "content")

    return write


def whole_archive_cut(path: Path) -> None:
    make.write_csv(path.parent / "unpacked", tiny_classes(path.parent))
    make.pack(path.parent / "unpacked", path)
    cut(path)


def archive_of_a_broken_image(path: Path) -> None:
    make.write_csv(path.parent / "unpacked", tiny_classes(path.parent))
    cut(first_image(path.parent / "unpacked"))
    make.pack(path.parent / "unpacked", path, "top")


def training(spoil: Callable[[Path], object], **parameters: str):
    """`prepare` of a case for papermill: 01_train on a data set, spoilt."""

    def prepare(folder: Path) -> list[str]:
        make.write_csv(folder / "mini-imagenet", tiny_classes(folder))
        spoil(folder / "mini-imagenet")
        given = {"dataset": "mini-imagenet", "data_dir": str(folder), "image_size": "16"}
        pairs = [word for pair in (given | parameters).items() for word in ("-p", *pair)]
        return [TRAIN, str(folder / "executed.ipynb"), *pairs]

    return prepare


def unwritable_cache(folder: Path) -> None:
    cache = folder.parent / "cache"
    cache.mkdir()
    cache.chmod(0o555)
    if os.access(cache, os.W_OK):  # root may write anywhere but in the kernel's own folders
        cache.rmdir()
        cache.symlink_to("/proc/self")


def no_folder(folder: Path) -> list[str]:
    return ["data", "check", str(folder / "nowhere")]


def notes_only(folder: Path) -> list[str]:
    (folder / "notes.txt").write_text("nothing here")
    return ["data", "check", str(folder)]


def csv_with(text: str):
    return lambda folder: (folder / "train.csv").write_text(text)


def parquet_with(columns: dict):
    def spoil(folder: Path) -> None:
        for path in folder.glob("train*"):
            pyarrow.parquet.write_table(pyarrow.table(columns), path)

    return spoil


def emptied(folder: Path) -> None:
    for path in (folder / "train" / "n00000000").iterdir():
        path.unlink()


HTML = b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>"
OTHER_ARRAY = {"image_data": np.zeros((4, 8, 8), np.uint8), "class_dict": {"n00000000": [0]}}
MISLABELLED = {"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"n00000000": [5]}}

CASES = [
    Case("no such folder", "negmeta", no_folder, ("nowhere", "does not exist", "correct PATH")),
    Case("no data set", "negmeta", notes_only,
         ("no data set here (found notes.txt)", "expected images/*.jpg with train.csv")),
    Case("a table missing", "negmeta", data_set(make.write_csv, without_val),
         ("mini-imagenet", "no val split beside train and test", "complete the data")),
    Case("a folder missing", "negmeta", data_set(make.write_folders, without_val),
         ("mini-imagenet", "no val split", "{train,val,test}/WNID")),
    Case("a pickle missing", "negmeta", data_set(make.write_cache_pickles, without_val),
         ("mini-imagenet", "no val split", "mini-imagenet-cache-")),
    Case("a class in two splits", "negmeta", data_set(make.write_folders, rename_test_class),
         ("class n00000000 is in train and in test", "share none")),
    Case("one list of classes", "negmeta", data_set(make.write_folders, classes_everywhere),
         ("hold the same 2 classes", "ordinary classification", "get the split of Ravi")),
    Case("a class without images", "negmeta", data_set(make.write_folders, emptied),
         ("no images in class n00000000 of the train split", "complete the data")),
    Case("an image cut short", "negmeta",
         data_set(make.write_csv, lambda f: cut(first_image(f))),
         ("n0000000000000000.jpg", "not a readable image", "replace it")),
    Case("an image of no bytes", "negmeta",
         data_set(make.write_folders, lambda f: first_image(f).write_bytes(b"")),
         ("n2000000000000000.jpg", "not a readable image", "replace it")),
    Case("a table naming absent files", "negmeta",
         data_set(make.write_csv, lambda f: first_image(f).unlink()),
         ("n0000000000000000.jpg", "listed, but not there", "complete the data")),
    Case("a table of something else", "negmeta",
         data_set(make.write_csv, csv_with("a,b\n1,2\n")),
         ("train.csv", "its first line names the columns a, b", "correct it")),
    Case("a table naming a file twice", "negmeta",
         data_set(make.write_csv, csv_with("filename,label\na.jpg,n0\na.jpg,n0\n")),
         ("train.csv", "class n0 names a file twice", "correct it")),
    Case("a table that is not text", "negmeta",
         data_set(make.write_csv, lambda f: (f / "train.csv").write_bytes(b"\xff\xfe\x00")),
         ("train.csv", "not a table in UTF-8", "correct it")),
    Case("a web page for a pickle", "negmeta", replaced_pickle(HTML),
         ("mini-imagenet-cache-train.pkl", "an HTML page", "fetch the data again")),
    Case("a pickle of something else", "negmeta", replaced_pickle(pickle.dumps([1, 2])),
         ("mini-imagenet-cache-train.pkl", "without image_data and class_dict", "right file")),
    Case("a pickle of other arrays", "negmeta", replaced_pickle(pickle.dumps(OTHER_ARRAY)),
         ("mini-imagenet-cache-train.pkl", "not an array of bytes [n, height", "right file")),
    Case("a pickle that contradicts itself", "negmeta", replaced_pickle(pickle.dumps(MISLABELLED)),
         ("mini-imagenet-cache-train.pkl", "class n00000000 does not list rows", "fetch it again")),
    Case("a pickle that runs a command", "negmeta", replaced_pickle(pickle.dumps(Command())),
         ("mini-imagenet-cache-train.pkl", "system is not admitted", "fetch it again")),
    Case("a pickle cut short", "negmeta",
         data_set(make.write_cache_pickles, lambda f: cut(f / "mini-imagenet-cache-test.pkl")),
         ("mini-imagenet-cache-test.pkl", "cut short", "fetch it again")),
    Case("Parquet cut short", "negmeta",
         data_set(make.write_parquet, lambda f: cut(next(f.glob("train*")))),
         ("train-0000", "not a whole Parquet file", "fetch it again")),
    Case("Parquet of something else", "negmeta",
         data_set(make.write_parquet, parquet_with({"text": ["a"]})),
         ("train-0000", "with columns image", "fetch it again")),
    Case("a tar that leads out", "negmeta", archive("a.tar.gz", tar_with("../../evil.jpg")),
         ("a.tar.gz", "../../evil.jpg leads out", "pack it again")),
    Case("a tar of an absolute name", "negmeta", archive("a.tgz", tar_with("/tmp/evil.jpg")),
         ("a.tgz", "/tmp/evil.jpg leads out", "pack it again")),
    Case("a tar with a symbolic link", "negmeta",
         archive("a.tar.gz", tar_with("images", tarfile.SYMTYPE, "/etc")),
         ("a.tar.gz", "images in it is a link", "pack the files instead")),
    Case("a tar with a hard link", "negmeta",
         archive("a.tar.gz", tar_with("images", tarfile.LNKTYPE, "/etc/passwd")),
         ("a.tar.gz", "images in it is a link", "pack the files instead")),
    Case("a tar with a device", "negmeta", archive("a.tar.gz", tar_with("tty", tarfile.CHRTYPE)),
         ("a.tar.gz", "tty in it is neither a file nor a folder", "pack")),
    Case("a zip that leads out", "negmeta", archive("a.zip", zip_with("train/../../evil.jpg")),
         ("a.zip", "train/../../evil.jpg leads out", "pack it again")),
    Case("a zip with a link", "negmeta", archive("a.zip", zip_with("train", 0o120777)),
         ("a.zip", "train in it is a link", "pack the files instead")),
    Case("a tar cut short", "negmeta", archive("a.tar.gz", whole_archive_cut),
         ("a.tar.gz", "not a whole archive", "fetch it again")),
    Case("a zip cut short", "negmeta", archive("a.zip", whole_archive_cut),
         ("a.zip", "not a whole archive", "fetch it again")),
    Case("a web page for an archive", "negmeta",
         archive("a.zip", lambda path: path.write_bytes(HTML)),
         ("a.zip", "an HTML page", "fetch the data again")),
    Case("an archive of a broken image", "negmeta", archive("a.tar", archive_of_a_broken_image),
         ("a.tar/top/images/n0000000000000000.jpg", "not a readable image", "replace it")),
    Case("an unknown download", "negmeta",
         lambda folder: ["data", "fetch", "imagenet", "--data-dir", str(folder / "new")],
         ("imagenet: cannot be fetched", "NAME is mini-imagenet")),
    Case("no folder of that name", "papermill",
         training(lambda f: None, dataset="folder:/nowhere"),
         ("/nowhere does not exist", "correct dataset")),
    Case("training on a broken image", "papermill", training(lambda f: cut(first_image(f))),
         ("n0000000000000000.jpg", "not a readable image", "replace it")),
    Case("a cache that cannot be written", "papermill", training(unwritable_cache),
         ("cache", "cannot be written", "set NEGMETA_CACHE to another folder")),
]  # fmt: skip
