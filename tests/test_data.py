"""Named data sets against arrays made independently, on folders made here and on the real ones."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from negmeta_utils import data, decoding

REAL = os.environ.get("NEGMETA_DATA")
needs = {
    name: pytest.mark.skipif(
        not REAL or not Path(REAL, name).is_dir(),
        reason=f"NEGMETA_DATA names no folder that holds {name}",
    )
    for name in ("mini-imagenet", "omniglot")
}


@pytest.fixture
def omniglot(tmp_path):
    """Twelve alphabets of two characters with three drawings; white paper, one black square whose
    place tells the drawing."""
    for part, alphabets in (("images_background", 12), ("images_evaluation", 2)):
        for a in range(alphabets):
            for c in range(2):
                folder = (
                    tmp_path / "omniglot" / part / f"{part[7]}{a:02d}" / f"character{c + 1:02d}"
                )
                folder.mkdir(parents=True)
                for d in range(3):
                    pixels = np.full((105, 105), 255, np.uint8)
                    pixels[10 * d : 10 * d + 20, 5 * a : 5 * a + 20] = 0
                    Image.fromarray(pixels).convert("1").save(folder / f"{c:04d}_{d:02d}.png")
    return tmp_path


def rows_of(folder, split):
    with (folder / f"{split}.csv").open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("size", [16, 10])
def test_mini_imagenet_is_what_pillow_reads_in_the_order_of_the_csv(tiny_data, tmp_path, size):
    images = data.load("mini-imagenet", "val", size, str(tiny_data), tmp_path)
    rows = rows_of(tiny_data / "mini-imagenet", "val")
    assert images.class_names == tuple(dict.fromkeys(row["label"] for row in rows))
    assert images.class_sizes.tolist() == [8] * 6
    for row, image in zip(rows, images.images, strict=True):
        original = Image.open(tiny_data / "mini-imagenet" / "images" / row["filename"])
        expected = np.asarray(original.resize((size, size), Image.Resampling.BILINEAR))
        assert (image.permute(1, 2, 0).numpy() == expected).all()


def test_the_folder_itself_serves_as_well_as_its_parent(tiny_data, tmp_path, monkeypatch):
    by_parent = data.load("mini-imagenet", "test", 16, str(tiny_data), tmp_path)
    by_folder = data.load("mini-imagenet", "test", 16, str(tiny_data / "mini-imagenet"), tmp_path)
    monkeypatch.setenv("NEGMETA_DATA", str(tiny_data))
    by_variable = data.load("mini-imagenet", "test", 16, cache_dir=tmp_path)
    assert by_parent.fingerprint == by_folder.fingerprint == by_variable.fingerprint
    assert len(list(tmp_path.iterdir())) == 3, "one source, one cache file a split"


def test_omniglot_is_bright_ink_by_character_and_splits_share_none(omniglot, tmp_path):
    splits = {
        split: data.load("omniglot", split, 105, str(omniglot), tmp_path / "cache")
        for split in data.SPLITS
    }
    assert {s: i.n_classes for s, i in splits.items()} == {"train": 20, "val": 4, "test": 4}
    assert splits["val"].class_names[0] == "b05/character01"
    names = [name for images in splits.values() for name in images.class_names]
    assert len(set(names)) == len(names)
    first = splits["train"].images[4, 0].numpy()
    assert (first[10:30, 0:20] == 255).all(), "the second character's second drawing"
    assert first.sum() == 255 * 400


def test_a_cached_split_is_not_decoded_again(tiny_data, tmp_path, monkeypatch):
    first = data.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
    again = data.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    assert (first.images == again.images).all()
    assert again.class_names == first.class_names


def test_a_changed_source_is_another_cache_file(omniglot, tmp_path):
    cache = tmp_path / "cache"
    before = data.load("omniglot", "val", 28, str(omniglot), cache)
    file = next((omniglot / "omniglot" / "images_background" / "b05").rglob("*.png"))
    Image.fromarray(np.zeros((105, 105), np.uint8)).save(file)
    after = data.load("omniglot", "val", 28, str(omniglot), cache)
    assert before.fingerprint != after.fingerprint
    assert len(list(cache.glob("omniglot-val-*"))) == 2
    assert len(list(cache.glob("omniglot-train-*"))) == 1, "it has not changed"


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_cache_file_cut_short_is_made_again(tiny_data, tmp_path, kept):
    first = data.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    whole = first.images.clone()
    (path,) = tmp_path.glob("*-val-*")
    content = path.read_bytes()
    del first
    path.unlink()
    path.write_bytes(content[:kept])
    assert (data.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path).images == whole).all()


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (
            lambda f: (f / "val.csv").unlink(),
            FileNotFoundError,
            "no val split beside train and test",
        ),
        (lambda f: (f / "val.csv").write_text("a,b\n1,2\n"), ValueError, "without filename or"),
        (lambda f: next(f.glob("images/n1*")).unlink(), FileNotFoundError, "listed, but not there"),
        (
            lambda f: next(f.glob("images/n1*")).write_bytes(b"<html>"),
            ValueError,
            "not a readable image",
        ),
    ],
)
def test_broken_data_are_named_and_leave_nothing(tiny_data, tmp_path, break_it, error, message):
    import shutil

    folder = tmp_path / "mini-imagenet"
    shutil.copytree(tiny_data / "mini-imagenet", folder)
    break_it(folder)
    with pytest.raises(error, match=message) as raised:
        data.load("mini-imagenet", "val", 16, str(tmp_path), tmp_path / "cache")
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "cache").exists()


def test_absent_data_and_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("NEGMETA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set data_dir, or the variable NEGMETA_DATA"):
        data.load("mini-imagenet", "train")
    with pytest.raises(FileNotFoundError, match="does not exist; correct data_dir"):
        data.load("omniglot", "train", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match="no omniglot here .found nothing.; expected images_background"
    ):
        data.load("omniglot", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="dataset='cifar': not one of glyphs"):
        data.load("cifar", "train")
    with pytest.raises(ValueError, match="split='all': not one of train"):
        data.load("glyphs", "all")


@needs["mini-imagenet"]
def test_real_mini_imagenet_is_all_there():
    for split, n_classes in {"train": 64, "val": 16, "test": 20}.items():
        assert len(rows_of(Path(REAL, "mini-imagenet"), split)) == 600 * n_classes
    images = data.load("mini-imagenet", "val", 84)
    assert images.n_classes == 16
    assert set(images.class_sizes) == {600}
    rows = rows_of(Path(REAL, "mini-imagenet"), "val")
    for row in (0, 4321, 9599):
        original = Image.open(Path(REAL, "mini-imagenet", "images", rows[row]["filename"]))
        assert (images.images[row].permute(1, 2, 0).numpy() == np.asarray(original)).all()


@needs["mini-imagenet"]
def test_splits_of_real_mini_imagenet_share_no_class():
    folder = Path(REAL, "mini-imagenet")
    labels = [{row["label"] for row in rows_of(folder, split)} for split in data.SPLITS]
    assert len(set.union(*labels)) == sum(map(len, labels)) == 100


@needs["omniglot"]
def test_real_omniglot_is_all_there():
    splits = {split: data.load("omniglot", split, 28) for split in data.SPLITS}
    assert splits["train"].n_classes + splits["val"].n_classes == 964
    assert splits["test"].n_classes == 659
    assert all(set(images.class_sizes) == {20} for images in splits.values())
    alphabets = [{n.split("/")[0] for n in images.class_names} for images in splits.values()]
    assert len(set.union(*alphabets)) == sum(map(len, alphabets)) == 50
