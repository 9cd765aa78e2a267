"""`negmeta data`: what data sets there are, whether one's own are right, and downloads. Its
command line is in `studies.cli`."""

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from negmeta_utils.data import accounting, archives, datasets, decoding, fetch, image_trees, layouts
from negmeta_utils.data.class_lists import CIFAR_FS, MINI_IMAGENET
from negmeta_utils.data.names import one_line, shown
from negmeta_utils.storage import paths

KNOWN_CLASSES = {
    "mini-imagenet": ("Ravi & Larochelle's split of Mini-ImageNet", MINI_IMAGENET),
    "cifar-fs": ("Bertinetto et al.'s split of CIFAR-100", CIFAR_FS),
}


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; exit status 0. Raises ValueError or OSError of one line."""
    if options.action == "check":
        with one_line(options.path):
            for line in _check(paths.resolve(options.path)):
                print(shown(line), flush=True)
        return 0
    given = options.data_dir or os.environ.get("NEGMETA_DATA")
    data_dir = paths.resolve(given) if given else None
    if options.action == "list":
        for line in _list(data_dir):
            print(shown(line))
        return 0
    if data_dir is None:
        raise ValueError("fetch: say where to with --data-dir, or set NEGMETA_DATA")
    with one_line(data_dir):
        folder = fetch.fetch(options.name, data_dir, print)
    print(f"Look at it with: negmeta data check {folder}")
    return 0


def _list(data_dir: Path | None) -> Iterator[str]:
    for name, dataset in datasets.DATASETS.items():
        yield f"{name:14}{dataset.about}"
        if dataset.layouts:
            yield f"{'':14}{_where(name, data_dir)}"
    yield f"{datasets.FOLDER + 'PATH':14}{datasets.ANY_FOLDER.about}"
    yield f"{'':14}{layouts.expected(datasets.ANY_FOLDER.layouts)}"
    yield f"Decoded images are kept in {paths.cache_folder()}"


def _where(name: str, data_dir: Path | None) -> str:
    """Where `name` is, or why not, without opening it."""
    if data_dir is None:
        return "not found: NEGMETA_DATA is not set, and no --data-dir given"
    try:
        source = datasets.locate(name, str(data_dir))
        if archives.is_archive(source):
            return f"found: {source}"
        found = layouts.find(name, datasets.DATASETS[name].layouts, source)
    except layouts.UnknownLayout:
        return f"not found in {data_dir}; to download it: negmeta data fetch {name}"
    except (ValueError, FileNotFoundError) as error:
        return f"not usable: {error}"
    return f"found: {found.folder} ({found.layout.title})"


def _check(path: Path) -> Iterator[str]:
    """The report on the data sets at `path`, in lines."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: does not exist; correct PATH")
    everything = [*chain(*(d.layouts for d in datasets.DATASETS.values())), image_trees.ANY_FOLDERS]
    source = path if path.is_dir() else datasets.place_of(path, everything)
    with archives.opened(source, paths.cache_folder()) as folder:
        recognised = _recognised(folder)
        for name, found in recognised.items():
            yield from _report(name, found, source if folder != source else None)
        yield from _beside(folder, [found.folder for found in recognised.values()])


def _beside(folder: Path, places: list[Path]) -> Iterator[str]:
    """What lies in `folder` and belongs to no data set of those that were reported."""
    if folder in places:
        return
    others = sorted(path.name for path in folder.iterdir() if path not in places)
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield f"Not looked at, beside: {', '.join(others[:5])}{more}"


def _recognised(folder: Path) -> dict[str, layouts.Found]:
    """The data sets in `folder` by name; any tree of splits and classes where none is known."""
    known = {name: d.layouts for name, d in datasets.DATASETS.items() if d.layouts}
    found = {}
    for name, candidates in known.items():
        with suppress(layouts.UnknownLayout):
            found[name] = layouts.find(name, candidates, folder)
    if not found:
        candidates = (*chain(*known.values()), image_trees.ANY_FOLDERS)
        found[datasets.FOLDER] = layouts.find("data set", candidates, folder)
    return found


def _report(name: str, found: layouts.Found, archive: Path | None) -> Iterator[str]:
    place = archive or found.folder
    named = f"{datasets.FOLDER}{place}" if name == datasets.FOLDER else name
    yield f"{place}"
    yield f"  layout   {found.layout.title}"
    splits = layouts.read_all(found)
    for split, content in splits.items():
        each = sorted({int(content.class_sizes.min()), int(content.class_sizes.max())})
        yield (
            f"  {split:8} {len(content.class_names)} classes, {len(content.images)} images, "
            f"{' to '.join(map(str, each))} a class"
        )
    if unlike := accounting.unlike_published(datasets.find_dataset(name), splits):
        yield f"  unlike   {unlike}"
    yield "  splits   share no class"
    if name in KNOWN_CLASSES:
        yield f"  classes  {_compared(name, splits)}"
    counts = Counter(size for s, c in splits.items() for size in decoding.sizes(c, f"reading {s}"))
    sizes = ", ".join(f"{w}x{h} ({n})" for (w, h), n in counts.most_common(3))
    yield f"  images   {counts.total()} read, none broken; width x height {sizes}" + (
        f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    )
    yield f"  files    {accounting.left_out_in_words(accounting.left_out(found, splits))}"
    use = f'dataset="{named}"' + ("" if name == datasets.FOLDER else f', data_dir="{place}"')
    yield f"  use      {use}"


def _compared(name: str, splits: dict[str, layouts.Split]) -> str:
    """How the classes compare with the known list."""
    title, known = KNOWN_CLASSES[name]
    same = sum(len(set(known[s]) & set(content.class_names)) for s, content in splits.items())
    total = sum(len(content.class_names) for content in splits.values())
    n_known = sum(map(len, known.values()))
    if same == total == n_known:
        return f"those of {title}"
    return f"{same} of the {n_known} of {title}, in their splits; {total - same} others"
