"""Named data sets against arrays made independently, on folders made here and on the real ones."""

import csv
import errno
import fcntl
import json
import multiprocessing
import os
import resource
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from PIL import Image

from negmeta_utils.data import cache as caching
from negmeta_utils.data import datasets, decoding, preparing, scratch

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
    images = datasets.load("mini-imagenet", "val", size, str(tiny_data), tmp_path)
    rows = rows_of(tiny_data / "mini-imagenet", "val")
    assert images.class_names == tuple(dict.fromkeys(row["label"] for row in rows))
    assert images.class_sizes.tolist() == [8] * 6
    for row, image in zip(rows, images.images, strict=True):
        original = Image.open(tiny_data / "mini-imagenet" / "images" / row["filename"])
        expected = np.asarray(original.resize((size, size), Image.Resampling.BILINEAR))
        assert (image.permute(1, 2, 0).numpy() == expected).all()


def test_the_folder_itself_serves_as_well_as_its_parent(tiny_data, tmp_path, monkeypatch):
    by_parent = datasets.load("mini-imagenet", "test", 16, str(tiny_data), tmp_path)
    by_folder = datasets.load(
        "mini-imagenet", "test", 16, str(tiny_data / "mini-imagenet"), tmp_path
    )
    monkeypatch.setenv("NEGMETA_DATA", str(tiny_data))
    by_variable = datasets.load("mini-imagenet", "test", 16, cache_dir=tmp_path)
    assert by_parent.fingerprint == by_folder.fingerprint == by_variable.fingerprint
    assert len(list(tmp_path.glob("*.safetensors"))) == 3, "one source, one cache file a split"


def test_omniglot_is_bright_ink_by_character_and_splits_share_none(omniglot, tmp_path):
    splits = {
        split: datasets.load("omniglot", split, 105, str(omniglot), tmp_path / "cache")
        for split in datasets.SPLITS
    }
    assert {s: i.n_classes for s, i in splits.items()} == {"train": 20, "val": 4, "test": 4}
    assert splits["val"].class_names[0] == "b05/character01"
    names = [name for images in splits.values() for name in images.class_names]
    assert len(set(names)) == len(names)
    first = splits["train"].images[4, 0].numpy()
    assert (first[10:30, 0:20] == 255).all(), "the second character's second drawing"
    assert first.sum() == 255 * 400


def test_a_cached_split_is_not_decoded_again(tiny_data, tmp_path, monkeypatch):
    first = datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("decoded again"))
    again = datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    assert (first.images == again.images).all()
    assert again.class_names == first.class_names


def test_of_several_processes_that_need_a_data_set_one_decodes_it(tiny_data, tmp_path):
    """All begin at once, and each would have to wait for a second to be decoded three times."""
    cache, decoded = tmp_path / "cache", tmp_path / "decoded"
    together = multiprocessing.get_context("fork").Barrier(3)
    decode = decoding.decode

    def slow_decode(content, mode, size, label):
        with decoded.open("a") as file:
            file.write(f"{label}\n")
        time.sleep(0.3)
        return decode(content, mode, size, label)

    def load(split):
        decoding.decode = slow_decode
        together.wait(60)
        images = datasets.load("mini-imagenet", split, 16, str(tiny_data), cache)
        (tmp_path / split).write_text(images.fingerprint)

    children = [
        multiprocessing.get_context("fork").Process(target=load, args=(split,))
        for split in datasets.SPLITS
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert sorted(decoded.read_text().split()[1::2]) == sorted(datasets.SPLITS)
    for split in datasets.SPLITS:
        again = datasets.load("mini-imagenet", split, 16, str(tiny_data), cache)
        assert (tmp_path / split).read_text() == again.fingerprint


def test_two_data_sets_do_not_share_a_cache_file(tmp_path):
    """Files of equal names, lengths and times, as reproducible archives have them."""
    for place, value in (("one", 0), ("two", 255)):
        for split in ("train", "val", "test"):
            file = tmp_path / place / split / f"{split}-class" / "0.png"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (value,) * 3).save(file, compress_level=0)
            os.utime(file, (0, 0))
    for place, value in (("one", 0), ("two", 255)):
        name = f"folder:{tmp_path / place}"
        images = datasets.load(name, "val", 8, None, tmp_path / "cache")
        assert (images.images == value).all()


def test_a_changed_source_is_another_cache_file(omniglot, tmp_path):
    cache = tmp_path / "cache"
    before = datasets.load("omniglot", "val", 28, str(omniglot), cache)
    file = next((omniglot / "omniglot" / "images_background" / "b05").rglob("*.png"))
    Image.fromarray(np.zeros((105, 105), np.uint8)).save(file)
    after = datasets.load("omniglot", "val", 28, str(omniglot), cache)
    assert before.fingerprint != after.fingerprint
    assert len(list(cache.glob("omniglot-val-*"))) == 2
    assert len(list(cache.glob("omniglot-train-*"))) == 1, "it has not changed"


def test_an_image_of_the_same_length_changed_in_place_is_noticed(tmp_path):
    for split in datasets.SPLITS:
        (tmp_path / "my" / split / split).mkdir(parents=True)
        Image.new("L", (8, 8), 100).save(tmp_path / "my" / split / split / "a.png")
    before = datasets.load(f"folder:{tmp_path / 'my'}", "val", 8, None, tmp_path / "cache")
    file = tmp_path / "my" / "val" / "val" / "a.png"
    size = file.stat().st_size
    Image.new("L", (8, 8), 101).save(file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert file.stat().st_size == size
    after = datasets.load(f"folder:{tmp_path / 'my'}", "val", 8, None, tmp_path / "cache")
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize("end", ["", ".zip", ".tar"])
def test_the_content_of_own_images_is_that_of_its_files_wherever_they_lie(end, tmp_path):
    for split in make.SPLITS:
        (tmp_path / "one" / split / split).mkdir(parents=True)
        for name in ("0.png", "1.png"):
            (tmp_path / "one" / split / split / name).write_text(split)

    def content():
        packed = make.pack(tmp_path / "one", tmp_path / f"packed{end}") if end else tmp_path / "one"
        return datasets.content_of(f"folder:{packed}")

    before = content()
    assert content() == before
    (tmp_path / "one" / "val" / "val" / "0.png").write_text("lav")
    assert content() != before
    with pytest.raises(FileNotFoundError, match="does not exist"):
        datasets.content_of(f"folder:{tmp_path / 'two'}")


def test_of_many_images_some_are_read_and_all_lengths_count(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "SAMPLED", 2)
    contents = set()
    for text in ("a", "b", "longer"):
        for split in make.SPLITS:
            (tmp_path / split / split).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                is_read = number in (0, 3)
                (tmp_path / split / split / f"{number}.png").write_text("a" if is_read else text)
        contents.add(datasets.content_of(f"folder:{tmp_path}"))
        (tmp_path / "train" / "train" / "README.txt").write_text(text)
    assert len(contents) == 2


def edited(**changes):
    """Changes metadata of a cache file, with a header that is whole, and keeps its digest."""

    def edit(raw):
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        about = json.loads(header["__metadata__"]["json"]) | changes
        header["__metadata__"]["json"] = json.dumps(about)
        new = json.dumps(header).encode()
        return len(new).to_bytes(8, "little") + new + raw[8 + length :]

    return edit


def flipped(place, bit):
    def flip(raw):
        changed = bytearray(raw)
        changed[place] ^= 1 << bit
        return bytes(changed)

    return flip


SPOILT = {
    "empty": lambda raw: b"",
    "cut in its header": lambda raw: raw[:100],
    "cut": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b"\0",
    "another file": lambda raw: b"PK\3\4" + bytes(500),
    "a header of exabytes": lambda raw: b"\xff" * 7 + b"\0" + raw[8:],
    "sizes that add up to the same": edited(class_sizes=[7, 9, 8, 8, 8, 8]),
    "sizes beyond numbers": edited(class_sizes=[1e400] * 6),
    "other names": edited(class_names=["a", "b", "c", "d", "e", "f"]),
    "no names": edited(class_names=None),
    "another fingerprint": edited(fingerprint="0123456789abcdef"),
    "first bit": flipped(0, 0),
    "a bit of the header": flipped(60, 1),
    "first pixel": flipped(-48 * 3 * 16 * 16, 0),
    "last pixel": flipped(-1, 7),
}


def load_val(folder, cache):
    return datasets.load("mini-imagenet", "val", 16, str(folder), cache)


def replaced(path, content):
    """The file itself is mapped, and must not be written to in place."""
    copy = path.with_name("copy")
    copy.write_bytes(content)
    os.replace(copy, path)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_cache_file_that_is_not_what_was_written_is_made_again(
    tiny_data, tmp_path, spoilt, capsys
):
    whole = load_val(tiny_data, tmp_path)
    (path,) = tmp_path.glob("*-val-*")
    content = path.read_bytes()
    replaced(path, SPOILT[spoilt](content))
    capsys.readouterr()
    again = load_val(tiny_data, tmp_path)
    assert (again.images == whole.images).all()
    assert again.fingerprint == whole.fingerprint
    assert again.class_sizes.tolist() == [8] * 6
    assert path.read_bytes() == content
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    lesser, spoilt_one = sorted(capsys.readouterr().err.splitlines(), key=len, reverse=True)
    assert lesser.startswith(f"{tiny_data / 'mini-imagenet'}: not as published: train 8 of 64")
    assert spoilt_one == f"{path}: not what was written there once; made again"


def test_no_bit_of_a_cache_file_may_turn_over_unnoticed(tiny_data, tmp_path):
    load_val(tiny_data, tmp_path)
    (path,) = tmp_path.glob("*-val-*")
    content = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, 8 * len(content), 300).tolist():
        replaced(path, flipped(place // 8, place % 8)(content))
        assert caching.kept(path) is None, f"bit {place}"
    replaced(path, content)
    assert caching.kept(path) is not None


def test_cache_files_that_changed_places_are_noticed(tiny_data, tmp_path):
    whole = load_val(tiny_data, tmp_path)
    (val,), (test,) = tmp_path.glob("*-val-*"), tmp_path.glob("*-test-*")
    replaced(val, test.read_bytes())
    assert load_val(tiny_data, tmp_path).fingerprint == whole.fingerprint


def test_a_source_that_changes_while_it_is_read_is_not_cached(tmp_path, monkeypatch):
    for split in datasets.SPLITS:
        (tmp_path / "my" / split / split).mkdir(parents=True)
        Image.new("L", (8, 8), 100).save(tmp_path / "my" / split / split / "a.png")
    decode = decoding.decode

    def changing(*arguments):
        Image.new("L", (9, 9), 50).save(tmp_path / "my" / "val" / "val" / "a.png")
        return decode(*arguments)

    monkeypatch.setattr(decoding, "decode", changing)
    with pytest.raises(ValueError, match="my: changed while it was read; call again"):
        datasets.load(f"folder:{tmp_path / 'my'}", "train", 8, None, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [preparing.LOCK]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_cache_files_are_as_readable_as_the_umask_says(umask, tiny_data, tmp_path):
    before = os.umask(umask)
    try:
        load_val(tiny_data, tmp_path)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.safetensors")}
    assert modes == {0o666 & ~umask}


@pytest.mark.parametrize("size", [30_000, 10**6, 10**12])
@pytest.mark.parametrize("name", ["mini-imagenet", "glyphs"])
def test_images_that_do_not_fit_are_refused_before_they_are_made(name, size, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=f"image_size={size}: .* choose a smaller image_size"):
        datasets.load(name, "val", size, str(tiny_data), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [preparing.LOCK]


def until(condition):
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_killed_process_left_is_cleared_by_the_next(packed, tiny_data, tmp_path):
    source = tiny_data / "mini-imagenet"
    if packed:
        source = make.pack(source, tmp_path / "a.zip")
    cache = tmp_path / "cache"

    def load_and_hang():
        wait = (lambda *_: time.sleep(60)) if packed else None
        if packed:
            decoding.decode = wait
        else:
            preparing._publish = lambda *_: time.sleep(60)
        datasets.load("mini-imagenet", "val", 16, str(source), cache)

    child = multiprocessing.get_context("fork").Process(target=load_and_hang)
    child.start()
    where = f"{scratch.PREFIX}*/content/{'images' if packed else '*test*'}"
    assert until(lambda: any(cache.glob(where)))
    scratch.clear(cache)
    assert any(cache.glob(where)), "of a process that lives"
    child.kill()
    child.join(60)
    assert any(cache.glob(where))
    datasets.load("mini-imagenet", "val", 16, str(source), cache)
    assert {p.name for p in cache.iterdir() if p.suffix != ".safetensors"} == {preparing.LOCK}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_cache_is_filled_and_that_is_said(number, tiny_data, tmp_path, monkeypatch):
    """As on NFS without its lock service."""

    def no_locks(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match=f"{tmp_path}: no locks on this file system"):
        datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    assert not list(tmp_path.glob(f"{scratch.PREFIX}*"))


def test_a_user_fills_the_cache_that_another_one_began():
    if os.getuid():
        pytest.skip("only root can be another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        datasets.load("glyphs", "val", 8, None, folder)
        before = set(Path(folder).iterdir())
        os.seteuid(65534)
        try:
            images = datasets.load("glyphs", "val", 9, None, folder)
        finally:
            os.seteuid(0)
        assert images.images.shape[-1] == 9
        (new,) = set(Path(folder).iterdir()) - before
        assert new.stat().st_uid == 65534


def test_a_cache_of_another_version_is_left_alone(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "FORMAT", preparing.FORMAT + 1)
    datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    others = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.undo()
    datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 6
    assert {path: path.read_bytes() for path in others} == others


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
def test_images_are_mapped_from_the_cache_not_copied(tiny_data, tmp_path):
    images = datasets.load("mini-imagenet", "val", 16, str(tiny_data), tmp_path)
    (path,) = tmp_path.glob("*-val-*")
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    assert any(start <= images.images.data_ptr() < end for start, end in ranges)


@contextmanager
def files_limited_to(n_bytes):
    """Writing beyond fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_fills_up_leaves_the_cache_as_it_was(tiny_data, tmp_path, packed):
    source = tiny_data / "mini-imagenet"
    if packed:
        source = make.pack(source, tmp_path / "a.zip")
    cache = tmp_path / "cache"
    datasets.load("mini-imagenet", "val", 8, str(tiny_data), cache)
    before = {path: path.read_bytes() for path in cache.iterdir()}
    with files_limited_to(600 if packed else 20_000), pytest.raises(OSError) as raised:
        datasets.load("mini-imagenet", "val", 16, str(source), cache)
    for words in (str(cache), "too large", "make room", "NEGMETA_CACHE to another folder"):
        assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in cache.iterdir()} == before


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (
            lambda f: (f / "val.csv").unlink(),
            FileNotFoundError,
            "no val split beside train and test",
        ),
        (
            lambda f: (f / "val.csv").write_text("a,b\n1,2\n"),
            ValueError,
            "its first line names the columns a, b",
        ),
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
        datasets.load("mini-imagenet", "val", 16, str(tmp_path), tmp_path / "cache")
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {preparing.LOCK}


def test_absent_data_and_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("NEGMETA_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set data_dir, or the variable NEGMETA_DATA"):
        datasets.load("mini-imagenet", "train")
    with pytest.raises(FileNotFoundError, match="does not exist; correct data_dir"):
        datasets.load("omniglot", "train", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match="no omniglot here .found nothing.; expected images_background"
    ):
        datasets.load("omniglot", "train", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="dataset='cifar': not one of glyphs"):
        datasets.load("cifar", "train")
    with pytest.raises(ValueError, match="split='all': not one of train"):
        datasets.load("glyphs", "all")


@needs["mini-imagenet"]
def test_real_mini_imagenet_is_all_there():
    for split, n_classes in {"train": 64, "val": 16, "test": 20}.items():
        assert len(rows_of(Path(REAL, "mini-imagenet"), split)) == 600 * n_classes
    images = datasets.load("mini-imagenet", "val", 84)
    assert images.n_classes == 16
    assert set(images.class_sizes) == {600}
    rows = rows_of(Path(REAL, "mini-imagenet"), "val")
    for row in (0, 4321, 9599):
        original = Image.open(Path(REAL, "mini-imagenet", "images", rows[row]["filename"]))
        assert (images.images[row].permute(1, 2, 0).numpy() == np.asarray(original)).all()


@needs["mini-imagenet"]
def test_splits_of_real_mini_imagenet_share_no_class():
    folder = Path(REAL, "mini-imagenet")
    labels = [{row["label"] for row in rows_of(folder, split)} for split in datasets.SPLITS]
    assert len(set.union(*labels)) == sum(map(len, labels)) == 100


@needs["omniglot"]
def test_real_omniglot_is_all_there():
    splits = {split: datasets.load("omniglot", split, 28) for split in datasets.SPLITS}
    assert splits["train"].n_classes + splits["val"].n_classes == 964
    assert splits["test"].n_classes == 659
    assert all(set(images.class_sizes) == {20} for images in splits.values())
    alphabets = [{n.split("/")[0] for n in images.class_names} for images in splits.values()]
    assert len(set.union(*alphabets)) == sum(map(len, alphabets)) == 50


def test_one_folder_under_two_names_is_in_two_splits(tmp_path):
    cat = tmp_path / "my" / "train" / "cat"
    for folder in (cat, tmp_path / "my" / "val" / "dog"):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "0.png")
    (tmp_path / "my" / "test").mkdir()
    (tmp_path / "my" / "test" / "cat2").symlink_to(cat)
    with pytest.raises(ValueError, match="train/cat/0.png: is in train and in test; correct"):
        datasets.load(f"folder:{tmp_path / 'my'}", "val", 8, None, tmp_path / "cache")


def one_class_a_split(folder):
    for place in ("train/cat", "val/dog", "test/cow"):
        (folder / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / place / "0.png")


def test_one_folder_under_two_names_is_twice_in_its_split(tmp_path):
    one_class_a_split(tmp_path / "my")
    (tmp_path / "my" / "train" / "cat2").symlink_to("cat")
    with pytest.raises(ValueError, match="train/cat/0.png: is twice in train, by a link; correct"):
        datasets.load(f"folder:{tmp_path / 'my'}", "val", 8, None, tmp_path / "cache")


def test_a_data_set_called_by_a_link_is_decoded_once(tmp_path):
    one_class_a_split(tmp_path / "my")
    (tmp_path / "link").symlink_to("my")
    for name in ("my", "link"):
        images = datasets.load(f"folder:{tmp_path / name}", "val", 8, None, tmp_path / "cache")
        assert images.class_names == ("dog",)
    assert len(list((tmp_path / "cache").glob("*-val-*"))) == 1


def test_another_data_set_in_the_place_of_one_is_told_by_its_classes(tmp_path, capsys):
    """Of tiered-imagenet alone, which lies as mini-imagenet may, nothing else would show it."""
    for first, split, n_classes in ((1, "train", 65), (2, "val", 16), (3, "test", 20)):
        for number in range(n_classes):
            file = tmp_path / "tiered" / split / f"n{first}{number:07}" / "0.png"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(file)
    datasets.load("mini-imagenet", "val", 8, str(tmp_path), tmp_path / "cache")
    said = capsys.readouterr().err
    assert f"{tmp_path / 'tiered'}: not as published: train 65 of 64 classes" in said
