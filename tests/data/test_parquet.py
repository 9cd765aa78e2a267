"""Parquet that is not all there, or not what it says."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from negmeta_utils.data import datasets

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def content(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def write(folder, split, labels, names=None, title=None, images=None):
    """One file of a split, with one image a label."""
    folder.mkdir(exist_ok=True)
    images = images or [{"bytes": content(i), "path": None} for i in range(len(labels))]
    info = {"info": {"features": {"label": {"names": names} if names else {}}}}
    table = pyarrow.table({"image": images, "label": pyarrow.array(labels)})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, folder / f"{title or SPLITS[split]}.parquet")


def write_all(folder, **of_train):
    for split in SPLITS:
        write(folder, split, [0, 0, 1, 1], [f"{split} a", f"{split} b"])
    write(folder, "train", **({"labels": [0, 1], "names": ["c", "d"]} | of_train))


def load(folder, split="train"):
    return datasets.load("mini-imagenet", split, 8, str(folder), folder.parent / "cache")


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        ((0, 1), "1 of 3 files are missing .train-00002-of-00003"),
        ((1, 2), "1 of 3 files are missing .train-00000-of-00003"),
        ((1,), "2 of 3 files are missing .train-00000-of-00003, train-00002-of-00003"),
    ],
)
def test_missing_shards_are_named(shards, words, tmp_path):
    write_all(tmp_path / "d")
    (tmp_path / "d" / "train.parquet").unlink()
    for n in shards:
        write(tmp_path / "d", "train", [0, 1], ["c", "d"], f"train-{n:05d}-of-00003")
    with pytest.raises(FileNotFoundError, match=words):
        load(tmp_path / "d")


@pytest.mark.parametrize("other", ["train-00000-of-00001", "train-00000-of-00002-abc"])
def test_files_of_two_sets_are_not_read_as_one(other, tmp_path):
    write_all(tmp_path / "d")
    for title in (other, "train-00001-of-00003"):
        write(tmp_path / "d", "train", [0, 1], ["c", "d"], title)
    with pytest.raises(ValueError, match="do not belong to one set of files"):
        load(tmp_path / "d")


@pytest.mark.parametrize("other", ["train (1)", "train-old", "training"])
def test_a_second_file_by_another_name_does_not_bring_every_image_twice(other, tmp_path):
    write_all(tmp_path / "d")
    for title in ("train", other):
        write(tmp_path / "d", "train", [0, 1], ["c", "d"], title)
    with pytest.raises(ValueError, match="do not belong to one set of files"):
        load(tmp_path / "d")


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([0, 1, -1], ["c", "d"], "row 2 has label -1, which names no class"),
        ([0, 1, 2], ["c", "d"], "labels up to 2 for 2 names"),
        ([0, 1, None], ["c", "d"], "row 2 has label None"),
        ([0.0, 1.5], ["c", "d"], "row 0 has label 0.0"),
        ([True, False], ["c", "d"], "row 0 has label True"),
        ([0, -1], None, "row 1 has label -1"),
        (["c", None], None, "label 'c', which|label None, which"),
        ([0, 1], ["c", "c"], "labels up to 1 for 1 names"),
    ],
)
def test_labels_out_of_their_range_join_no_class(labels, names, words, tmp_path):
    write_all(tmp_path / "d", labels=labels, names=names)
    with pytest.raises(ValueError, match=words) as raised:
        load(tmp_path / "d")
    assert "train.parquet" in str(raised.value) and "\n" not in str(raised.value)
    assert "fetch it again" not in str(raised.value)  # which would bring the same file


def test_images_may_be_plain_bytes_and_labels_end_in_blanks(tmp_path):
    write_all(tmp_path / "d", labels=["c", "c ", "d"], images=[content(i) for i in (5, 6, 7)])
    images = load(tmp_path / "d")
    assert images.class_names == ("c", "d")
    assert images.images[:, 0, 0, 0].tolist() == [5, 6, 7]


@pytest.mark.parametrize("image", [{"bytes": None, "path": "/etc/passwd"}, {"path": "a.png"}])
def test_an_image_that_is_a_path_alone_is_not_followed(image, tmp_path):
    write_all(tmp_path / "d", labels=[0], names=["c"], images=[image])
    with pytest.raises(ValueError, match="holds no bytes"):
        load(tmp_path / "d")


def test_one_large_image_many_times_over_is_refused(tmp_path, monkeypatch):
    """In the file it stands once, in a dictionary."""
    monkeypatch.setattr("negmeta_utils.data.bounds.SMALL", 10**7)
    large = content() + np.random.default_rng(0).bytes(10**5)
    write_all(tmp_path / "d", labels=[0] * 5000, names=["c"], images=[{"bytes": large}] * 5000)
    assert (tmp_path / "d" / "train.parquet").stat().st_size < 10**6
    with pytest.raises(ValueError, match="unpacks to more than 100 times its length"):
        load(tmp_path / "d")


@pytest.mark.parametrize("place", range(0, 1500, 83))
def test_a_damaged_file_is_named_whatever_the_damage(place, tmp_path):
    write_all(tmp_path / "d")
    path = tmp_path / "d" / "train.parquet"
    whole = load(tmp_path / "d")
    damaged = bytearray(path.read_bytes())
    damaged[-1 - place % len(damaged)] ^= 0xFF
    path.write_bytes(damaged)
    try:
        images = load(tmp_path / "d")
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:  # it was where nothing is read
        assert (images.images == whole.images).all()
        assert images.class_names == whole.class_names
