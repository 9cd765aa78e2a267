"""The same images in every layout, folder or archive, must come out as the same arrays."""

import csv
import os
import pickle
import shutil
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from PIL import Image

from negmeta_utils.data import archives, datasets, layouts, preparing
from negmeta_utils.data.class_lists import CIFAR_FS, MINI_IMAGENET

REAL = os.environ.get("NEGMETA_DATA")
REAL_CLASSES = {"train": 3, "val": 2, "test": 2}
REAL_IMAGES = 12


@pytest.fixture(scope="module")
def classes(tiny_data):
    """A few real classes where there are real data, else the made ones."""
    root = Path(REAL) if REAL and Path(REAL, "mini-imagenet").is_dir() else tiny_data
    taken = {}
    for split in make.SPLITS:
        with (root / "mini-imagenet" / f"{split}.csv").open() as lines:
            rows = list(csv.DictReader(lines))
        names = list(dict.fromkeys(row["label"] for row in rows))[: REAL_CLASSES[split]]
        taken[split] = {
            name: [
                root / "mini-imagenet" / "images" / row["filename"]
                for row in rows
                if row["label"] == name
            ][:REAL_IMAGES]
            for name in names
        }
    return taken


@pytest.fixture(scope="module")
def expected(classes):
    """Of each split: class names, class sizes, and uint8 [n, 3, height, width] by Pillow alone."""
    return {
        split: (
            tuple(of_split),
            [len(files) for files in of_split.values()],
            np.concatenate([make.pixels(files) for files in of_split.values()]).transpose(
                0, 3, 1, 2
            ),
        )
        for split, of_split in classes.items()
    }


def check(source, expected, cache, name="mini-imagenet"):
    size = expected["train"][2].shape[-1]
    for split, (names, sizes, images) in expected.items():
        loaded = datasets.load(name, split, size, str(source), cache)
        assert loaded.class_names == names
        assert loaded.class_sizes.tolist() == sizes
        assert (loaded.images.numpy() == images).all()


MAKERS = {
    "csv": make.write_csv,
    "folders": make.write_folders,
    "folders, validation": lambda f, c: make.write_folders(f, c, "validation"),
    "cache pickles": lambda f, c: make.write_cache_pickles(f, c, "val"),
    "cache pickles, validation": lambda f, c: make.write_cache_pickles(f, c, "validation", 4),
    "MetaOptNet, Python 2": make.write_metaoptnet,
    "MetaOptNet, Python 3": lambda f, c: make.write_metaoptnet(f, c, python2=False),
    "Parquet": make.write_parquet,
    "Parquet, text labels": lambda f, c: make.write_parquet(f, c, 1, "text"),
    "Parquet, names in paths": lambda f, c: make.write_parquet(f, c, 1, "paths"),
}


@pytest.mark.parametrize("layout", MAKERS)
def test_every_layout_gives_the_same_classes_and_images(layout, classes, expected, tmp_path):
    MAKERS[layout](tmp_path / "here" / "mini-imagenet", classes)
    check(tmp_path / "here", expected, tmp_path / "cache")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar", ".zip"])
@pytest.mark.parametrize("layout", ["csv", "cache pickles"])
def test_archives_are_read_wrapped_or_not_and_leave_only_the_cache(
    layout, suffix, classes, expected, tmp_path
):
    MAKERS[layout](tmp_path / "unpacked", classes)
    for top in ("", "miniImageNet"):
        archive = make.pack(tmp_path / "unpacked", tmp_path / f"mini-imagenet{suffix}", top)
        cache = tmp_path / f"cache{top}"
        check(archive, expected, cache)
        assert sorted(p.name.split("-")[2] for p in cache.glob("*.safetensors")) == [
            "test",
            "train",
            "val",
        ]
    shutil.rmtree(tmp_path / "unpacked")
    check(tmp_path, expected, tmp_path / "cache")  # by the parent, from the cache


def test_one_file_of_a_data_set_names_its_folder(classes, expected, tmp_path):
    make.write_cache_pickles(tmp_path / "any", classes)
    check(tmp_path / "any" / "mini-imagenet-cache-val.pkl", expected, tmp_path / "cache")


def test_a_cached_archive_is_not_unpacked_again(classes, expected, tmp_path, monkeypatch):
    make.write_folders(tmp_path / "unpacked", classes)
    archive = make.pack(tmp_path / "unpacked", tmp_path / "a.zip")
    check(archive, expected, tmp_path / "cache")
    monkeypatch.setattr(archives, "extract", lambda *_: pytest.fail("unpacked again"))
    check(archive, expected, tmp_path / "cache")


def test_rows_out_of_order_in_a_csv_make_no_difference(classes, expected, tmp_path):
    make.write_csv(tmp_path / "mini-imagenet", classes)
    table = tmp_path / "mini-imagenet" / "train.csv"
    header, *rows = table.read_text().splitlines()
    np.random.default_rng(0).shuffle(rows)
    table.write_text("\n".join([header, *rows]))
    check(tmp_path, expected, tmp_path / "cache")


def test_blanks_in_a_csv_make_no_class(classes, expected, tmp_path):
    make.write_csv(tmp_path / "mini-imagenet", classes)
    for split in make.SPLITS:
        table = tmp_path / "mini-imagenet" / f"{split}.csv"
        header, *rows = table.read_text().splitlines()
        rows[1::3] = [f" {row}\t" for row in rows[1::3]]
        rows[2::3] = [row.replace(",", " , ") for row in rows[2::3]]
        table.write_text("\r\n".join([header.replace(",", ", "), *rows]))
    check(tmp_path, expected, tmp_path / "cache")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../../secret.jpg,n00000000", "leads out of images/"),
        ("/etc/secret.jpg,n00000000", "leads out of images/"),
        ("a.jpg,n00000000\na.jpg,n00000001", "n00000000 and n00000001 names a file twice, a.jpg"),
    ],
)
def test_a_csv_names_files_of_its_images_once(row, words, classes, tmp_path):
    make.write_csv(tmp_path / "mini-imagenet", classes)
    with (tmp_path / "mini-imagenet" / "train.csv").open("a") as table:
        table.write(f"{row}\n")
    with pytest.raises(ValueError, match=words):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("header", ["filename;label", "Filename,Label", "filename,label,label", ""])
def test_a_csv_whose_first_line_is_another_is_refused(header, classes, tmp_path):
    make.write_csv(tmp_path / "mini-imagenet", classes)
    table = tmp_path / "mini-imagenet" / "train.csv"
    table.write_text(table.read_text().replace("filename,label", header, 1))
    with pytest.raises(ValueError, match="train.csv: its first line .* to filename,label"):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path), tmp_path / "cache")


def test_omniglot_may_lie_in_folders_of_their_own_names(tmp_path):
    for part, n in (("images_background", 6), ("images_evaluation", 1)):
        for a in range(n):
            folder = tmp_path / "omniglot" / part / part / f"{part[7:9]}{a}" / "character01"
            folder.mkdir(parents=True)
            Image.new("1", (105, 105)).save(folder / "0.png")
    images = datasets.load("omniglot", "train", 28, str(tmp_path), tmp_path / "cache")
    assert images.n_classes == 5


def test_parquet_without_any_names_counts_its_classes(classes, tmp_path):
    unnamed = {
        split: {
            name: [Path(shutil.copy(f, tmp_path / f"{split}{i}{j}.jpg")) for j, f in enumerate(of)]
            for i, (name, of) in enumerate(of_split.items())
        }
        for split, of_split in classes.items()
    }
    make.write_parquet(tmp_path / "mini-imagenet", unnamed, 1, "paths")
    images = datasets.load("mini-imagenet", "val", 16, str(tmp_path), tmp_path / "cache")
    assert images.class_names == ("val label 000", "val label 001")


@pytest.mark.parametrize(
    "layout", ["csv", "folders", "cache pickles", "MetaOptNet, Python 2", "Parquet"]
)
@pytest.mark.parametrize("n_splits", [2, 3])
def test_a_split_for_ordinary_classification_is_refused(layout, n_splits, tiny_data, tmp_path):
    """The look-alike: the same classes in every split, other images."""
    files = sorted((tiny_data / "mini-imagenet" / "images").glob("n0*"))
    lookalike = {
        split: {f"n{c:08d}": files[8 * c + 2 * s : 8 * c + 2 * s + 2] for c in range(5)}
        for s, split in enumerate(make.SPLITS[:n_splits])
    }
    MAKERS[layout](tmp_path / "mini-imagenet", lookalike)
    with pytest.raises(ValueError, match="hold the same 5 classes: a split for ordinary"):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path), tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {preparing.LOCK}


def test_two_data_sets_side_by_side_are_not_guessed_between(classes, tmp_path):
    make.write_folders(tmp_path / "here" / "one", classes)
    make.write_folders(tmp_path / "here" / "two", classes)
    with pytest.raises(ValueError, match="more than once, in one and two; name one"):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path / "here"), tmp_path / "cache")


def test_folders_that_are_not_of_wordnet_are_no_mini_imagenet(tiny_data, tmp_path):
    files = sorted((tiny_data / "mini-imagenet" / "images").glob("*"))
    birds = {s: {f"{s}-robin": files[:2], f"{s}-wren": files[2:4]} for s in make.SPLITS}
    make.write_folders(tmp_path / "birds", birds)
    with pytest.raises(layouts.UnknownLayout, match="no mini-imagenet here"):
        datasets.load("mini-imagenet", "train", 16, str(tmp_path), tmp_path / "cache")
    images = datasets.load(f"folder:{tmp_path / 'birds'}", "val", None, None, tmp_path / "cache")
    assert images.class_names == ("val-robin", "val-wren")
    assert images.images.shape == (4, 3, 84, 84)


def test_a_folder_takes_png_and_jpeg_in_the_order_of_names(tmp_path):
    shades = {"b.PNG": 200, "a.jpeg": 100, "c.jpg": 50}
    for split in make.SPLITS:
        for name, shade in shades.items():
            folder = tmp_path / "my" / split / f"class of {split}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), shade).save(folder / name)
            (folder / ".DS_Store").touch()
            (folder / "notes.txt").touch()
    images = datasets.load(f"folder:{tmp_path / 'my'}", "test", 8, None, tmp_path / "cache")
    assert images.class_names == ("class of test",)
    assert images.images[:, 0, 0, 0].tolist() == [100, 200, 50]


@pytest.fixture(scope="module")
def cifar():
    """Noise of each of the hundred classes: uint8 [4, 32, 32, 3]."""
    generator = np.random.default_rng(1)
    names = [name for of_split in CIFAR_FS.values() for name in of_split]
    return {name: generator.integers(0, 256, (4, 32, 32, 3), np.uint8) for name in names}


def test_cifar_fs_is_the_same_from_folders_and_from_cifars_own_files(cifar, tmp_path):
    files = {split: {name: [] for name in names} for split, names in CIFAR_FS.items()}
    (tmp_path / "png").mkdir()
    for of_split in files.values():
        for name, listed in of_split.items():
            for i, image in enumerate(cifar[name]):
                listed.append(tmp_path / "png" / f"{name}_s_{i:06d}.png")
                Image.fromarray(image).save(listed[-1])
    make.write_bertinetto(tmp_path / "one" / "cifar-fs" / "cifar100", files)
    make.write_cifar(tmp_path / "two" / "cifar-fs" / "cifar-100-python", cifar)
    make.write_folders(tmp_path / "three" / "cifar-fs", files)
    expected = {
        split: (
            tuple(names),
            [4] * len(names),
            np.concatenate([cifar[name] for name in names]).transpose(0, 3, 1, 2),
        )
        for split, names in CIFAR_FS.items()
    }
    for place in ("one", "two", "three"):
        check(tmp_path / place, expected, tmp_path / "cache", "cifar-fs")


def test_the_class_lists_are_64_16_and_20_and_share_none():
    for known in (MINI_IMAGENET, CIFAR_FS):
        assert [len(known[split]) for split in make.SPLITS] == [64, 16, 20]
        assert all(known[split] == sorted(known[split]) for split in make.SPLITS)
        assert len(set(sum(known.values(), []))) == 100


@pytest.mark.skipif(
    not REAL or not Path(REAL, "mini-imagenet").is_dir(), reason="NEGMETA_DATA has no mini-imagenet"
)
def test_the_class_list_is_that_of_the_real_data():
    for split, known in MINI_IMAGENET.items():
        with Path(REAL, "mini-imagenet", f"{split}.csv").open() as lines:
            assert list(dict.fromkeys(row["label"] for row in csv.DictReader(lines))) == known


def test_pickled_rows_that_do_not_belong_are_refused(tmp_path):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for rows in ([0, 4], [0, -1], [1, 1], [0.5], ["a"]):
        content = {"image_data": images, "class_dict": {"n00000001": rows}}
        for split in make.SPLITS:
            path = tmp_path / f"mini-imagenet-cache-{split}.pkl"
            path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="class n00000001 does not list rows"):
            datasets.load("mini-imagenet", "train", 8, str(tmp_path), tmp_path / "cache")


def test_what_archivers_and_desktops_add_is_not_data(classes, expected, tmp_path):
    make.write_folders(tmp_path / "unpacked", classes)
    extra = tmp_path / "unpacked" / "__MACOSX" / "train"
    extra.mkdir(parents=True)
    name, files = next(iter(classes["train"].items()))
    (tmp_path / "unpacked" / "train" / name / f"._{files[0].name}").write_bytes(b"fork")
    (tmp_path / "unpacked" / "train" / ".Trash").mkdir()
    check(make.pack(tmp_path / "unpacked", tmp_path / "a.zip"), expected, tmp_path / "cache")
