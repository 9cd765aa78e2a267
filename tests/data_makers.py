"""Writes the same images in each layout that data sets come in."""

import io
import json
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

SPLITS = ("train", "val", "test")
Classes = dict[str, dict[str, list[Path]]]  # image files by split and class, in order


def pixels(files):
    """What Pillow reads: uint8 [n, height, width, 3]."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def write_csv(folder: Path, classes: Classes, val="val"):
    (folder / "images").mkdir(parents=True)
    for split, of_split in classes.items():
        lines = ["filename,label"]
        for name, files in of_split.items():
            for file in files:
                shutil.copy(file, folder / "images" / file.name)
                lines.append(f"{file.name},{name}")
        (folder / f"{split if split != 'val' else val}.csv").write_text("\n".join(lines) + "\n")


def write_folders(folder: Path, classes: Classes, val="val"):
    for split, of_split in classes.items():
        for name, files in of_split.items():
            to = folder / (split if split != "val" else val) / name
            to.mkdir(parents=True)
            for file in reversed(files):
                shutil.copy(file, to / file.name)


def write_cache_pickles(folder: Path, classes: Classes, val="val", protocol=2):
    """Classes in another order than their names', as dictionaries of Python 2 had."""
    folder.mkdir(parents=True)
    for split, of_split in classes.items():
        shuffled = dict(reversed(of_split.items()))
        starts = np.cumsum([0, *map(len, shuffled.values())])
        content = {
            "image_data": np.concatenate([pixels(files) for files in shuffled.values()]),
            "class_dict": {
                name: list(range(starts[i], starts[i + 1])) for i, name in enumerate(shuffled)
            },
        }
        path = folder / f"mini-imagenet-cache-{split if split != 'val' else val}.pkl"
        path.write_bytes(pickle.dumps(content, protocol))


class Python2Pickler(pickle._Pickler):
    """Writes texts and bytes alike as the byte strings of Python 2."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(content) -> bytes:
    """As Python 2 and NumPy 1 would have written it."""
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def write_metaoptnet(folder: Path, classes: Classes, python2=True):
    """Labels counted through the splits."""
    folder.mkdir(parents=True)
    first = 0
    for split, of_split in classes.items():
        labels = {name: first + i for i, name in enumerate(of_split)}
        content = {
            "data": np.concatenate([pixels(files) for files in of_split.values()]),
            "labels": [labels[name] for name, files in of_split.items() for _ in files],
            "catname2label": labels,
        }
        part = "train_phase_train" if split == "train" else split
        path = folder / f"miniImageNet_category_split_{part}.pickle"
        path.write_bytes(python2_pickle(content) if python2 else pickle.dumps(content))
        first += len(of_split)


def write_parquet(folder: Path, classes: Classes, shards=2, labels="names"):
    """labels: "names" in the metadata, "text" in the column, or "paths" of the images alone."""
    folder.mkdir(parents=True)
    for split, of_split in classes.items():
        names = list(of_split)
        rows = [(file, number) for number, name in enumerate(names) for file in of_split[name]]
        columns = {
            "image": [{"bytes": f.read_bytes(), "path": f.name} for f, _ in rows],
            "label": [names[n] if labels == "text" else n for _, n in rows],
        }
        feature = {"_type": "ClassLabel", "names": names}
        info = {"info": {"features": {"label": feature if labels == "names" else {}}}}
        table = pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps(info)})
        title = "validation" if split == "val" else split
        for i in range(shards):
            part = table.slice(len(rows) * i // shards, len(rows) // shards + (i + 1 == shards))
            path = folder / f"{title}-{i:05d}-of-{shards:05d}.parquet"
            pyarrow.parquet.write_table(part, path)


def write_cifar(folder: Path, classes: dict[str, np.ndarray]):
    """CIFAR-100's own files, of images uint8 [n, 32, 32, 3] by class: half to train, half to
    test, in an order that is not that of the file names."""
    folder.mkdir(parents=True)
    names = sorted(classes)
    rows = [(n, i) for i in range(len(next(iter(classes.values())))) for n in reversed(names)]
    for part, of_part in (("train", rows[: len(rows) // 2]), ("test", rows[len(rows) // 2 :])):
        images = [classes[name][i].transpose(2, 0, 1).ravel() for name, i in of_part]
        content = {
            "data": np.stack(images),
            "fine_labels": [names.index(name) for name, _ in of_part],
            "filenames": [f"{name}_s_{i:06d}.png" for name, i in of_part],
        }
        (folder / part).write_bytes(python2_pickle(content))
    (folder / "meta").write_bytes(python2_pickle({"fine_label_names": names}))


def write_bertinetto(folder: Path, classes: Classes):
    (folder / "splits" / "bertinetto").mkdir(parents=True)
    for split, of_split in classes.items():
        listed = folder / "splits" / "bertinetto" / f"{split}.txt"
        listed.write_text("".join(f"{name}\n" for name in reversed(of_split)))
        for name, files in of_split.items():
            (folder / "data" / name).mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder / "data" / name / file.name)


def pack(folder: Path, archive: Path, top: str = "") -> Path:
    """Everything in `folder`, below a folder `top` in the archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for file in sorted(folder.rglob("*")):
                packed.write(file, Path(top) / file.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as packed:
            packed.add(folder, top or ".")
    return archive
