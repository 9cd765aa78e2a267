"""Mini-ImageNet as Parquet: one row an image, with columns `image` and `label`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet

from negmeta_utils.data import bounds, pickles
from negmeta_utils.data.layouts import SPLITS, Layout, Split, grouped, split_of
from negmeta_utils.data.names import shown

WNID = re.compile(r"n\d{8}")
SHARD = re.compile(r"-(\d+)-of-(\d+)")
ROWS_AT_ONCE = 64


class Unusable(ValueError):
    """Why a file that is whole is no data set: to fetch it again would not help."""


def _parts(folder: Path) -> dict[str, list[Path]]:
    parts = {s: sorted(p for p in folder.glob(f"{s}*.parquet") if p.is_file()) for s in SPLITS}
    return {split: paths for split, paths in parts.items() if paths}


def _read(parts: list[Path], split: str) -> Split:
    _refuse_missing_shards(parts)
    images: list[bytes] = []
    names: list[str] = []
    for path in parts:
        pickles.refuse_html(path)
        try:
            of_file, names_of_file = _read_file(path, split)
        except Unusable as error:
            raise ValueError(f"{path}: {shown(error)}") from error
        except Exception as error:  # on damaged files Arrow raises errors of any kind
            raise ValueError(
                f"{path}: not a whole Parquet file with columns image (bytes, path) and label "
                f"({shown(error)[:200]}); fetch it again"
            ) from error
        images += of_file
        names += names_of_file
    return split_of(grouped(images, names), parts[0])


def _refuse_missing_shards(paths: list[Path]) -> None:
    """The names say how many files there are: train-00000-of-00003."""
    numbered = [match for path in paths if (match := SHARD.search(path.name))]
    totals = {int(match[2]) for match in numbered}
    kinds = {re.sub(r"\d+", "", SHARD.split(path.name)[0]) for path in paths}
    if len(totals) > 1 or 0 < len(numbered) < len(paths) or len(kinds) > 1:
        names = " and ".join(path.name for path in (paths[0], paths[-1]))
        raise ValueError(
            f"{paths[0].parent}: {names} do not belong to one set of files; remove those of another"
        )
    if not numbered:
        return
    there = [int(match[1]) for match in numbered]
    missing = sorted(set(range(totals.pop())) - set(there))
    if missing or len(set(there)) < len(there):
        width = len(numbered[0][1])
        begin = paths[0].name[: numbered[0].start()]
        listed = ", ".join(
            f"{begin}-{n:0{width}d}-of-{numbered[0][2]}" for n in missing[:5]
        ) or "none, but one is there twice"  # fmt: skip
        raise FileNotFoundError(
            f"{paths[0].parent}: {len(missing)} of {int(numbered[0][2])} files are missing "
            f"({listed}); complete the download"
        )


def _read_file(path: Path, split: str) -> tuple[list[bytes], list[str]]:
    length = bounds.length_of(path)
    images: list[bytes] = []
    files: list[str | None] = []
    labels: list = []
    unpacked = 0
    with pyarrow.parquet.ParquetFile(path) as table:
        bounds.refuse_beyond_memory(2 * length, "its images", "use another machine")
        # The sizes of columns are given by the file itself, and rows may repeat one large value.
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=["image", "label"]):
            unpacked += batch.nbytes
            if bounds.is_bomb(unpacked, length):
                raise Unusable(
                    f"unpacks to more than {bounds.MAX_RATIO} times its length, and so is refused; "
                    "store every image once"
                )
            for content, file in map(_image, batch["image"].to_pylist()):
                images.append(content)
                files.append(file)
            labels += batch["label"].to_pylist()
        metadata = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    return images, list(_class_names(labels, files, json.loads(metadata), split))


def _image(cell: object) -> tuple[bytes, str | None]:
    """Content and file name of an image: a dictionary of them, or the content alone."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes | bytearray | memoryview):
        raise Unusable(
            "a row whose image holds no bytes (a path alone is not followed); store the bytes of "
            "the image files"
        )
    file = cell.get("path") if isinstance(cell, dict) else None
    return bytes(content), file


def _class_names(
    labels: list, files: list[str | None], metadata: dict, split: str
) -> Iterator[str]:
    """One class name a row: the label itself if it is a text, else its name in the file's
    metadata, else the WNID with which the image's file name begins, else the label's number."""
    if all(isinstance(label, str) for label in labels):
        yield from (label.strip() for label in labels)
        return
    for row, label in enumerate(labels):
        if type(label) is not int or label < 0:
            raise Unusable(
                f"row {row} has label {label!r}, which names no class; label it, or leave it out"
            )
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names")
    if names:
        if max(labels) >= len(names) or len(set(names)) < len(names):
            raise Unusable(
                f"labels up to {max(labels)} for {len(set(names))} names of classes; correct the "
                "labels, or the names in the file's metadata"
            )
        yield from (names[label].strip() for label in labels)
        return
    wnids = [WNID.match(file or "") for file in files]
    if all(wnids):
        yield from (match[0] for match in wnids if match)
        return
    # Numbers may start at 0 in every split; a split of all hundred classes is no few-shot split.
    prefix = "" if len(set(labels)) == 100 else f"{split} "
    yield from (f"{prefix}label {label:03d}" for label in labels)


PARQUET = Layout("{train,validation,test}*.parquet", _parts, _read, of_files=False)
