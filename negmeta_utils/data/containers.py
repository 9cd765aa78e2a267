"""Layouts in which one file holds many images: pickles and Parquet."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from negmeta_utils.data import pickles
from negmeta_utils.data.class_lists import CIFAR_FS
from negmeta_utils.data.layouts import SPLITS, Layout, Split, grouped, named, split_of

WNID = re.compile(r"n\d{8}")


def _cache_parts(folder: Path) -> dict[str, list[Path]]:
    return named(folder, "mini-imagenet-cache-{}.pkl")


def _read_cache(parts: list[Path], split: str) -> Split:
    (path,) = parts
    content = _dictionary(path, image_data=np.ndarray, class_dict=dict)
    pixels = _pixels(path, content["image_data"])
    images: dict[str, list[np.ndarray]] = {}
    for name, listed in content["class_dict"].items():
        rows = np.asarray(listed)
        if rows.dtype.kind not in "iu" or rows.ndim != 1 or not _distinct_below(rows, len(pixels)):
            raise ValueError(
                f"{path}: class {pickles.text(name)} does not list rows of the {len(pixels)} "
                "images, each once; fetch it again"
            )
        images[pickles.text(name)] = [pixels[row] for row in rows]
    return split_of(images, path)


def _distinct_below(rows: np.ndarray, end: int) -> bool:
    return len(np.unique(rows)) == len(rows) and ((rows >= 0) & (rows < end)).all()


def _metaoptnet_parts(folder: Path) -> dict[str, list[Path]]:
    prefix = "miniImageNet_category_split_"
    return named(folder, prefix + "{}_phase_train.pickle", prefix + "{}.pickle")


def _read_metaoptnet(parts: list[Path], split: str) -> Split:
    (path,) = parts
    content = _dictionary(path, data=np.ndarray, labels=list | np.ndarray, catname2label=dict)
    pixels = _pixels(path, content["data"])
    names = {label: pickles.text(name) for name, label in content["catname2label"].items()}
    labels = np.asarray(content["labels"]).tolist()
    if len(labels) != len(pixels) or not set(labels) <= set(names):
        raise ValueError(
            f"{path}: {len(pixels)} images, {len(labels)} labels and {len(names)} names of labels "
            "do not belong together; fetch it again"
        )
    return split_of(grouped(pixels, [names[label] for label in labels]), path)


def _parquet_parts(folder: Path) -> dict[str, list[Path]]:
    parts = {split: sorted(folder.glob(f"{split}*.parquet")) for split in SPLITS}
    return {split: paths for split, paths in parts.items() if paths}


def _read_parquet(parts: list[Path], split: str) -> Split:
    images: list[bytes] = []
    names: list[str] = []
    for path in parts:
        pickles.refuse_html(path)
        try:
            table = pyarrow.parquet.read_table(path, columns=["image", "label"])
            cells = table["image"].to_pylist()
            names += _label_names(table, cells, split)
            images += [memoryview(cell["bytes"]).tobytes() for cell in cells]
        except (pyarrow.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path}: not a whole Parquet file with columns image (bytes, path) and label "
                f"({said}); fetch it again"
            ) from error
    return split_of(grouped(images, names), parts[0])


def _label_names(table: pyarrow.Table, cells: list[dict], split: str) -> list[str]:
    """One class name a row: the label itself if it is a text, else its name in the file's
    metadata, else the WNID with which the image's file name begins, else the label's number."""
    labels = table["label"].to_pylist()
    if all(isinstance(label, str) for label in labels):
        return labels
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names")
    if names:
        return [names[label] for label in labels]
    wnids = [WNID.match(cell.get("path") or "") for cell in cells]
    if all(wnids):
        return [match[0] for match in wnids]
    # Numbers may start at 0 in every split; a split of all hundred classes is no few-shot split.
    prefix = "" if len(set(labels)) == 100 else f"{split} "
    return [f"{prefix}label {label:03d}" for label in labels]


def _cifar_parts(folder: Path) -> dict[str, list[Path]]:
    paths = [folder / name for name in ("train", "test", "meta")]
    return {split: paths for split in SPLITS} if all(p.is_file() for p in paths) else {}


def _read_cifar(parts: list[Path], split: str) -> Split:
    meta = _dictionary(parts[2], fine_label_names=list)
    names = [pickles.text(name) for name in meta["fine_label_names"]]
    rows: dict[str, dict[str, np.ndarray]] = {name: {} for name in CIFAR_FS[split]}
    for path in parts[:2]:
        content = _dictionary(path, data=np.ndarray, fine_labels=list, filenames=list)
        pixels = content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        files = map(pickles.text, content["filenames"])
        for image, label, file in zip(pixels, content["fine_labels"], files, strict=True):
            if names[label] in rows:
                rows[names[label]][file] = image
    return split_of({c: [of[f] for f in sorted(of)] for c, of in rows.items()}, parts[0].parent)


def _dictionary(path: Path, **kinds: type) -> dict:
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
PARQUET = Layout("{train,validation,test}*.parquet", _parquet_parts, _read_parquet, of_files=False)
CIFAR_PYTHON = Layout(
    "CIFAR-100's own train, test and meta", _cifar_parts, _read_cifar, of_files=False
)
