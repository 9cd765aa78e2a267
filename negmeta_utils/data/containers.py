"""Layouts in which one pickle holds many images."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from negmeta_utils.data import pickles
from negmeta_utils.data.class_lists import CIFAR_FS
from negmeta_utils.data.layouts import SPLITS, Layout, Split, grouped, named, split_of
from negmeta_utils.data.names import shown

UNLABELLED = "an image has a label that is no whole number"


def _cache_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder, "mini-imagenet-cache-{}.pkl")


def _read_cache(parts: list[Path], split: str) -> Split:
    (path,) = parts
    content = _dictionary(path, image_data=np.ndarray, class_dict=dict)
    pixels = _pixels(path, content["image_data"])
    rows: dict[object, np.ndarray] = {}
    for name, of_class in content["class_dict"].items():
        what = (
            f"class {_text(path, name)} does not list rows of the {len(pixels)} images, each once"
        )
        rows[name] = _whole_numbers(path, of_class, what)
        if not _distinct_below(rows[name], len(pixels)):
            raise ValueError(f"{path}: {what}; fetch it again")
    listed = np.concatenate([np.zeros(0, np.int64), *rows.values()])
    if len(np.unique(listed)) < max(len(listed), len(pixels)):
        raise ValueError(
            f"{path}: of its {len(pixels)} images, some are in two classes or in none; fetch it "
            "again"
        )
    names = _distinct_texts(path, rows)
    images = {names[name]: [pixels[row] for row in of_class] for name, of_class in rows.items()}
    return split_of(images, path)


def _distinct_below(rows: np.ndarray, end: int) -> bool:
    return len(np.unique(rows)) == len(rows) and bool(((rows >= 0) & (rows < end)).all())


def _whole_numbers(path: Path, listed: object, what: str = UNLABELLED) -> np.ndarray:
    """A list or an array of whole numbers: int64 [n]. Raises ValueError for anything else, before
    NumPy would look into lists within lists."""
    if isinstance(listed, list | tuple) and all(type(n) is int for n in listed):
        with suppress(OverflowError):
            return np.array(listed, dtype=np.int64)
    if isinstance(listed, np.ndarray) and listed.ndim == 1 and listed.dtype.kind in "iu":
        return listed.astype(np.int64)
    raise ValueError(f"{path}: {what}; fetch it again")


def _distinct_texts(path: Path, names: Iterable[object]) -> dict[object, str]:
    texts = {name: _text(path, name) for name in names}
    if len(set(texts.values())) < len(texts):
        raise ValueError(f"{path}: names a class twice; fetch it again")
    return texts


def _text(path: Path, value: Any) -> str:
    try:
        return pickles.text(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; fetch it again") from error


def _metaoptnet_parts(folder: Path) -> dict[str, list[Path]]:
    prefix = "miniImageNet_category_split_"
    return named(folder, prefix + "{}_phase_train.pickle", prefix + "{}.pickle")


def _read_metaoptnet(parts: list[Path], split: str) -> Split:
    (path,) = parts
    content = _dictionary(path, data=np.ndarray, labels=list | np.ndarray, catname2label=dict)
    pixels = _pixels(path, content["data"])
    texts = _distinct_texts(path, content["catname2label"])
    numbers = _whole_numbers(path, list(content["catname2label"].values())).tolist()
    names = dict(zip(numbers, texts.values(), strict=True))
    labels = _whole_numbers(path, content["labels"]).tolist()
    fits = len(labels) == len(pixels) and set(labels) <= set(names)
    if not fits or len(names) < len(texts):
        raise ValueError(
            f"{path}: {len(pixels)} images, {len(labels)} labels and {len(names)} names of labels "
            "do not belong together; fetch it again"
        )
    return split_of(grouped(pixels, [names[label] for label in labels]), path)


def _cifar_parts(folder: Path) -> dict[str, list[Path]]:
    paths = [folder / name for name in ("train", "test", "meta")]
    return {split: paths for split in SPLITS} if all(p.is_file() for p in paths) else {}


def _read_cifar(parts: list[Path], split: str) -> Split:
    meta = _dictionary(parts[2], fine_label_names=list)
    names = [_text(parts[2], name) for name in meta["fine_label_names"]]
    rows: dict[str, dict[str, np.ndarray]] = {name: {} for name in CIFAR_FS[split]}
    for path in parts[:2]:
        content = _dictionary(path, data=np.ndarray, fine_labels=list, filenames=list)
        pixels, labels = content["data"], _whole_numbers(path, content["fine_labels"])
        files = [_text(path, file) for file in content["filenames"]]
        is_cifar = pixels.ndim == 2 and pixels.shape[1:] == (3072,) and pixels.dtype == np.uint8
        if not is_cifar or not len(pixels) == len(labels) == len(set(files)):
            raise ValueError(
                f"{path}: its images, labels and file names do not belong together; fetch it again"
            )
        if not ((labels >= 0) & (labels < len(names))).all():
            raise ValueError(f"{path}: labels beyond its {len(names)} classes; fetch it again")
        coloured = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for image, label, file in zip(coloured, labels, files, strict=True):
            if names[label] in rows:
                if file in rows[names[label]]:
                    raise ValueError(f"{path}: {shown(file)} is there twice; fetch it again")
                rows[names[label]][file] = image
    return split_of({c: [of[f] for f in sorted(of)] for c, of in rows.items()}, parts[0].parent)


def _dictionary(path: Path, **kinds: Any) -> dict:
    """The pickled dictionary at `path`. Raises ValueError where it lacks one of these keys, or
    holds something else there."""
    content = pickles.load(path)
    content = content if isinstance(content, dict) else {}
    content = {pickles.text(k): v for k, v in content.items() if isinstance(k, str | bytes)}
    lacking = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if lacking:
        raise ValueError(
            f"{path}: a pickle of something else, without {' and '.join(lacking)}; "
            "check that it is the right file"
        )
    return content


def _pixels(path: Path, images: np.ndarray) -> np.ndarray:
    """`images`, which are uint8 [n, height, width, 3]. Raises ValueError where they are not."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"{path}: its images are not an array of bytes [n, height, width, 3]; "
            "check that it is the right file"
        )
    return images


CACHE_PICKLES = Layout(
    "mini-imagenet-cache-{train,val,test}.pkl", _cache_parts, _read_cache, of_files=False
)
METAOPTNET = Layout(
    "miniImageNet_category_split_{train_phase_train,val,test}.pickle",
    _metaoptnet_parts, _read_metaoptnet, of_files=False,
)  # fmt: skip
CIFAR_PYTHON = Layout(
    "CIFAR-100's own train, test and meta", _cifar_parts, _read_cifar, of_files=False
)
