"""Which files in a data set's folder are not read, and why; and where a data set is unlike what was
published."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from negmeta_utils.data.image_trees import SUFFIXES
from negmeta_utils.data.layouts import SPLITS, Dataset, Found, Split

MOST = 2_000_000  # entries that are looked at
DESKTOP = ("__MACOSX", "thumbs.db", "desktop.ini")


class LeftOut(NamedTuple):
    """Files left out for one reason: how many, one of them, and whether they may be images."""

    reason: str
    n_files: int
    example: str
    is_image: bool


def left_out(found: Found, splits: dict[str, Split]) -> list[LeftOut]:
    """The files in a data set's folder that are not read, by reason, most files first."""
    used = {os.path.normpath(path) for paths in found.parts.values() for path in paths}
    if found.layout.of_files:
        used.update(os.path.normpath(str(i)) for split in splits.values() for i in split.images)
    reasons: dict[str, list[str]] = {}
    for number, (path, reason) in enumerate(_entries(str(found.folder))):
        if number == MOST:
            reasons["more than are counted"] = [path]
            break
        if reason or path not in used:
            reasons.setdefault(reason or _reason(path), []).append(path)
    listed = [
        LeftOut(reason, len(paths), min(paths), _may_be_image(reason, paths[0]))
        for reason, paths in reasons.items()
    ]
    return sorted(listed, key=lambda left: (-left.n_files, left.reason))


def _reason(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return "images in no class"
    return f"{suffix} files" if suffix else "files without a suffix"


def _may_be_image(reason: str, path: str) -> bool:
    is_picture = os.path.splitext(path)[1].lower() in Image.registered_extensions()
    return reason not in (HIDDEN, OF_OTHERS) and (is_picture or not reason.endswith("files"))


HIDDEN, OF_OTHERS = "hidden or of a desktop", "more than are counted"


def _entries(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below `folder` with why it cannot be read, empty where it can; and every folder
    that cannot be opened. A folder to which several links lead is entered once."""
    waiting, seen = [folder], set()
    while waiting:
        here = waiting.pop()
        try:
            about = os.stat(here)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = list(os.scandir(here))
        except OSError:
            yield here, "folders that cannot be opened"
            continue
        for entry in entries:
            path = os.path.normpath(entry.path)
            if entry.name[0] == "." or entry.name.lower() in map(str.lower, DESKTOP):
                yield path, HIDDEN
            elif os.path.isdir(path):
                waiting.append(path)
            elif os.path.isfile(path):
                yield path, ""
            elif os.path.exists(path):
                yield path, "pipes, sockets or devices"
            else:
                yield path, "links that lead nowhere"


def left_out_in_words(listed: list[LeftOut]) -> str:
    """What is left out, in one line."""
    total = sum(left.n_files for left in listed)
    if not total:
        return "none left out"
    each = [
        f"{left.n_files} {left.reason} (as {os.path.basename(left.example)})" for left in listed
    ]
    more = f" and {len(each) - 8} kinds more" if len(each) > 8 else ""
    return (
        f"{total} left out: {', '.join(each[:8])}{more}; images are read from {', '.join(SUFFIXES)}"
    )


def unlike_published(dataset: Dataset, splits: dict[str, Split]) -> str:
    """Which splits have other numbers of classes, or fewer images, than were published, in one
    line; or nothing."""
    each = []
    for split, n_classes in zip(SPLITS, dataset.published[0], strict=False):
        content, n_images = splits[split], n_classes * dataset.published[1]
        if len(content.class_names) != n_classes or len(content.images) < n_images:
            each.append(
                f"{split} {len(content.class_names)} of {n_classes} classes, "
                f"{len(content.images)} of {n_images} images"
            )
    return "; ".join(each)
