"""Archives that ask for more than they are, and those that are only packed unusually."""

import gzip
import io
import os
import tarfile
import tempfile
import time
import zipfile

import data_makers as make
import pytest
from PIL import Image

from negmeta_utils import runs
from negmeta_utils.data import archives, bounds, datasets, scratch


def extract(archive, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    archives.extract(archive, folder)
    return folder


def tar_of(path, *members, mode="w"):
    """Members: names with contents, or TarInfo with contents."""
    with tarfile.open(path, mode) as packed:
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


def sparse_tar(path):
    """A header that says 20 GB, in the old GNU form, with nothing behind it."""
    header = bytearray(tarfile.TarInfo("train.csv").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:398] = header[398:410] = b"%011o\0" % 0
    header[482] = 0
    header[483:495] = b"\x80" + (20 * 10**9).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    return path


def typed(name, kind):
    member = tarfile.TarInfo(name)
    member.type = kind
    return member


def long_name(path):
    """A name of 100 MB, of zeros that pack to 100 kB."""
    member = typed("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    member.size = 10**8
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(10**8 + 512), 1))
    return path


def zip_of(path, *members, **options):
    with zipfile.ZipFile(path, "w", **options) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.tar", sparse_tar, "train.csv in it is sparse"),
        ("a.tar.gz", long_name, "a name of 1000.* bytes"),
        ("a.tar", lambda p: tar_of(p, ("a/" * 2500 + "x", b"")), "too deep or too long"),
        ("a.zip", lambda p: zip_of(p, ("a/" * 2500 + "x", b"")), "too deep or too long"),
        ("a.tar", lambda p: tar_of(p, ("a" * 300, b"")), "File name too long.; pack it again"),
        ("a.zip", lambda p: zip_of(p, ("a" * 300, b"")), "File name too long.; pack it again"),
        ("a.tar", lambda p: tar_of(p, (typed("p", tarfile.FIFOTYPE), b"")), "neither a file"),
        ("a.tar", lambda p: tar_of(p, ("x.png", b"1"), ("./x.png", b"2")), "there twice"),
        ("a.zip", lambda p: zip_of(p, ("x", b"1"), ("x/y", b"2")), "cannot be unpacked"),
        ("a.tar", lambda p: p.write_bytes(b"\xfd7zXZ\0" + bytes(600)), "packed by xz; what is"),
        ("a.zip", lambda p: p.write_bytes(b"Rar!\x1a\7" + bytes(600)), "packed by RAR"),
        ("a.tgz", lambda p: p.write_bytes(b"7z\xbc\xaf" + bytes(600)), "packed by 7-Zip"),
        ("a.zip", lambda p: p.write_bytes(b""), "not a whole archive"),
        ("a.tar", lambda p: p.write_bytes(b"some text"), "not a whole archive"),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(name, write, words, tmp_path):
    path = tmp_path / name
    write(path)
    with pytest.raises((ValueError, OSError), match=words) as raised:
        datasets.load(f"folder:{path}", "train", 8, None, tmp_path / "cache")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600
    assert {p.name for p in (tmp_path / "cache").iterdir()} <= {".lock"}


def zeros_gz(path):
    return tar_of(path, ("x.png", bytes(10**7)), mode="w:gz")


def zeros_zip(path):
    return zip_of(path, ("x.png", bytes(10**7)), compression=zipfile.ZIP_DEFLATED)


def lying_zip(path):
    """The sizes in its directory are a thousandth of what is packed."""
    raw = zeros_zip(path).read_bytes()
    path.write_bytes(raw.replace((10**7).to_bytes(4, "little"), (10**4).to_bytes(4, "little")))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.tar.gz", zeros_gz, "more than 100 times its length"),
        ("a.zip", zeros_zip, "more than 100 times its length"),
        ("a.zip", lying_zip, "not a whole archive"),
    ],
)
def test_a_bomb_is_refused(name, write, words, tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "SMALL", 10**6)
    write(tmp_path / name)
    with pytest.raises(ValueError, match=words):
        extract(tmp_path / name, tmp_path)
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= 10**5


def test_a_tar_of_very_many_empty_files_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MANY", 1000)
    path = tar_of(tmp_path / "a.tar.gz", *((f"{n}", b"") for n in range(3000)), mode="w:gz")
    monkeypatch.setattr(bounds, "MAX_RATIO", 2)
    with pytest.raises(ValueError, match="more than 2 times its length"):
        extract(path, tmp_path)
    assert len(list((tmp_path / "out").iterdir())) <= 1001


def own_set(folder):
    for split in make.SPLITS:
        (folder / split / f"{split} a").mkdir(parents=True)
        Image.new("L", (8, 8), 77).save(folder / split / f"{split} a" / "0.png")
    return folder


def from_windows(folder, path):
    with zipfile.ZipFile(path, "w") as packed:
        for file in folder.rglob("*.png"):
            member = zipfile.ZipInfo("x")
            member.filename = str(file.relative_to(folder)).replace("/", "\\")
            packed.writestr(member, file.read_bytes())


def unpacked_by_a_browser(folder, path):
    make.pack(folder, path.with_name("b.tar")).rename(path)


def by_another_name(folder, path):
    make.pack(folder, path.with_name("b.zip")).rename(path)


def dated_far_off(folder, path):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as packed:
        for file in folder.rglob("*.png"):
            member = tarfile.TarInfo(str(file.relative_to(folder)))
            member.size, member.mtime = file.stat().st_size, 2**60
            packed.addfile(member, io.BytesIO(file.read_bytes()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.zip", from_windows),
        ("a.tar.gz", unpacked_by_a_browser),
        ("a.tar", by_another_name),
        ("a.tar", dated_far_off),
    ],
)
def test_what_is_packed_unusually_is_read(name, write, tmp_path):
    write(own_set(tmp_path / "set"), tmp_path / name)
    images = datasets.load(f"folder:{tmp_path / name}", "val", 8, None, tmp_path / "cache")
    assert images.class_names == ("val a",) and (images.images == 77).all()


def at_a_member(packed, at):
    return packed[:at]


def in_a_header(packed, at):
    return packed[: at + 100]


def damaged_header(packed, at):
    return packed[: at + 3] + bytes([packed[at + 3] ^ 1]) + packed[at + 4 :]


def zeros_between(packed, at):
    return packed[:at] + bytes(1024) + packed[at:]


def another_behind(packed, at):
    return packed + packed


@pytest.mark.parametrize("packing", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (at_a_member, "broken off or damaged"),
        (in_a_header, "broken off or damaged"),
        (damaged_header, "broken off or damaged"),
        (zeros_between, "more behind its end"),
        (another_behind, "more behind its end"),
    ],
)
def test_no_file_of_a_tar_is_left_out_silently(damage, words, packing, tmp_path):
    """tarfile takes a missing or damaged header for the end, and reads nothing after it."""
    whole = tar_of(tmp_path / "whole.tar", *((f"{n}.png", b"content") for n in range(4)))
    with tarfile.open(whole) as packed:
        at = packed.getmembers()[2].offset
    content = damage(whole.read_bytes(), at)
    path = tmp_path / packing
    path.write_bytes(gzip.compress(content) if packing.endswith("gz") else content)
    with pytest.raises(ValueError, match=words):
        extract(path, tmp_path)


def test_only_what_nobody_holds_is_cleared(tmp_path):
    with scratch.folder(tmp_path) as mine:
        young, old = tmp_path / f"{scratch.PREFIX}young", tmp_path / f"{scratch.PREFIX}old"
        for path in (young, old):
            (path / "content").mkdir(parents=True)
        long_ago = time.time() - 2 * scratch.YOUNG
        os.utime(old, (long_ago, long_ago))
        with scratch.folder(tmp_path) as other:
            assert mine.is_dir() and other.is_dir() and young.is_dir()
            assert not old.exists()
    assert list(tmp_path.iterdir()) == [young]


def test_the_systems_folder_is_cleared_of_what_is_this_users_and_nobody_holds(
    tmp_path, monkeypatch
):
    """After SIGKILL, here of a process that ended without a word."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "negmeta-data").mkdir()
    os.utime(tmp_path / "negmeta-data", (0, 0))
    killed = os.fork()
    if not killed:
        runs.output_folder(None)
        os._exit(9)
    os.waitpid(killed, 0)
    (left,) = tmp_path.glob(f"{scratch.IN_TEMPORARY}*")
    with monkeypatch.context() as other_user:
        other_user.setattr(os, "getuid", lambda: 4711)
        with scratch.temporary() as mine:
            assert left.is_dir() and mine.is_dir()
    with scratch.temporary():
        assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["negmeta-data"]


def test_memory_is_what_the_control_group_leaves(tmp_path):
    """As a container or a cluster sets it; two groups within one another, the outer one tighter."""
    for name, limit in (("slurm/job", "max"), ("slurm", str(10**9))):
        group = tmp_path / "sys" / "fs" / "cgroup" / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.stat").write_text("anon 400000000\nfile 5\n")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/slurm/job\n")
    assert bounds.available_memory(tmp_path) == 6 * 10**8
