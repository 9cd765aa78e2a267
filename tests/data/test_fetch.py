"""Downloads from a server on this machine that does what servers do, and worse."""

import errno
import hashlib
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import data_makers as make
import numpy as np
import pytest
from PIL import Image

from negmeta_utils.data import archives, datasets, fetch
from negmeta_utils.data.class_lists import CIFAR_FS
from negmeta_utils.studies import cli

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, in the way that `server.manner` says; keeps the Range of each
    request in `server.ranges`."""

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        content = server.files.get(self.path)
        if server.manner == "waits":
            server.reached.set()
            server.go_on.wait(10)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if content is None or server.manner == "gone":
            return self.send_error(404)
        if server.manner == "circle":
            self.send_response(302)
            self.send_header("Location", self.path)
            return self.end_headers()
        if server.manner == "garbage":
            return self.wfile.write(b"\0\x1b[31mgarbage\r\n\r\n")
        if server.manner == "always 416":
            return self.send_error(416)
        if server.manner == "length abc":
            return self.answer(200, b"short", length="abc")
        if server.manner == "html":
            return self.answer(200, b"<html>Please sign in</html>", "text/html; charset=utf-8")
        if server.manner == "html in disguise":
            return self.answer(200, b"<html>Sign in</html>" + content[20:])
        if server.manner == "other":
            return self.answer(200, content[::-1])
        if server.manner == "shorter":
            return self.answer(200, content[:-1])
        if server.manner == "endless":
            return self.answer(200, content + content, length=None)
        if start >= len(content) and start:
            return self.send_error(416)
        if server.manner == "no ranges":
            start = 0
        body, status = content[start:], 206 if start else 200
        if server.manner == "breaks off":
            return self.answer(status, body[:1_100_000], length=len(body))
        if server.manner == "breaks off for good":
            return self.answer(status, b"" if start else body[:1_100_000], length=len(body))
        return self.answer(status, body)

    def answer(self, status, body, kind="application/octet-stream", length=0):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 206:
            asked = self.headers["Range"]
            self.send_header("Content-Range", f"bytes {asked.removeprefix('bytes=')}/*")
        if length is not None:
            self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # the client has had enough
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.manner, server.ranges = {"/a.pkl": CONTENT}, "", []
        server.reached, server.go_on = threading.Event(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    return fetch.Remote(f"{server.url}/a.pkl", MD5, len(CONTENT))


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, remote, tmp_path):
    said = []
    for _ in range(2):
        fetch.download(remote, tmp_path / "a.pkl", said.append)
    assert (tmp_path / "a.pkl").read_bytes() == CONTENT
    assert server.ranges == [None]
    assert "MD5 as recorded" in said[0] and "is there already" in said[1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_connection_that_breaks_off_is_gone_on_with(size, server, remote, tmp_path):
    server.manner = "breaks off"
    fetch.download(remote._replace(size=size), tmp_path / "a.pkl", print)
    assert (tmp_path / "a.pkl").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1100000-", "bytes=2200000-"]


def test_a_later_call_goes_on_where_an_earlier_one_ended(server, remote, tmp_path):
    server.manner = "breaks off for good"
    with pytest.raises(OSError, match="broke off after 1100000 bytes.*same command again"):
        fetch.download(remote, tmp_path / "a.pkl", print)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl.part"]
    server.manner, server.ranges = "", []
    fetch.download(remote, tmp_path / "a.pkl", print)
    assert (tmp_path / "a.pkl").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1100000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server, remote, tmp_path):
    (tmp_path / "a.pkl.part").write_bytes(CONTENT[:1000])
    server.manner = "no ranges"
    fetch.download(remote, tmp_path / "a.pkl", print)
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "a.pkl").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_begun_again(server, remote, tmp_path):
    (tmp_path / "a.pkl.part").write_bytes(CONTENT + b"more")
    fetch.download(remote, tmp_path / "a.pkl", print)
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]
    assert (tmp_path / "a.pkl").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("manner", "size", "message"),
    [
        ("gone", True, "HTTP Error 404: Not Found; try later"),
        ("circle", True, "the server redirects, and in a circle .*HTTP 302.; try later"),
        ("garbage", True, "broke off after 0 bytes .*garbage.*check the connection"),
        ("always 416", True, "HTTP Error 416.*; try later"),
        ("length abc", None, "what came is not the file of the record"),
        ("html", True, "the server sends an HTML page, not the file"),
        ("html", False, "the server sends an HTML page, not the file"),
        ("html in disguise", False, "an HTML page, not data"),
        ("other", True, "what came is not the file of the record"),
        ("shorter", True, "the server offers 2999999 bytes, and the record says 3000000"),
        ("shorter", False, "what came is not the file of the record"),
        ("endless", True, "sends more than the 3000000 bytes"),
        ("endless", False, "what came is not the file of the record"),
    ],
)
def test_what_is_not_the_file_replaces_nothing(manner, size, message, server, remote, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"what was there before")
    server.manner = manner
    remote = remote if size else remote._replace(size=None)
    with pytest.raises((OSError, ValueError), match=message) as raised:
        fetch.download(remote, tmp_path / "a.pkl", print)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "a.pkl").read_bytes() == b"what was there before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"], "no part that could be gone on with"


def test_no_server_at_all_is_said_in_a_line(closed_port, tmp_path):
    nowhere = fetch.Remote(f"http://127.0.0.1:{closed_port}/a.pkl", MD5, len(CONTENT))
    with pytest.raises(OSError, match="broke off after 0 bytes .*refused.*check the connection"):
        fetch.download(nowhere, tmp_path / "a.pkl", print)


def test_a_download_that_does_not_fit_is_not_begun(server, remote, tmp_path, monkeypatch):
    usage = fetch.shutil.disk_usage(tmp_path)._replace(free=2_999_999)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="no room for 3000000 bytes; make room there"):
        fetch.download(remote, tmp_path / "a.pkl", print)
    assert not list(tmp_path.iterdir())


def test_of_two_fetches_at_once_the_second_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MINI_IMAGENET", {"a": (len(CONTENT), MD5)})
    monkeypatch.setattr(fetch, "ZENODO", f"{server.url}/{{}}.pkl")
    server.manner = "waits"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch.fetch, "mini-imagenet", tmp_path, print)
        server.reached.wait(10)
        with pytest.raises(BlockingIOError, match="mini-imagenet: in use by another process"):
            fetch.fetch("mini-imagenet", tmp_path, print)
        server.go_on.set()
        folder = first.result()
    assert (folder / "a.pkl").read_bytes() == CONTENT
    assert server.ranges == [None]


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_fetch_mini_imagenet_gives_data_that_load(server, tiny_data, tmp_path, monkeypatch, capsys):
    files = sorted((tiny_data / "mini-imagenet" / "images").glob("*"))
    classes = {s: {f"n{i:08d}": files[8 * i : 8 * i + 8]} for i, s in enumerate(make.SPLITS)}
    make.write_cache_pickles(tmp_path / "served", classes, "validation")
    served = {p.name: p for p in (tmp_path / "served").iterdir()}
    server.files = {f"/{name}": path.read_bytes() for name, path in served.items()}
    record = {
        name.removeprefix("mini-imagenet-cache-").removesuffix(".pkl"): (
            path.stat().st_size,
            md5_of(path),
        )
        for name, path in served.items()
    }
    monkeypatch.setattr(fetch, "MINI_IMAGENET", record)
    monkeypatch.setattr(fetch, "ZENODO", f"{server.url}/mini-imagenet-cache-{{}}.pkl")
    there = tmp_path / "data"
    assert cli.main(["data", "fetch", "mini-imagenet", "--data-dir", str(there)]) == 0
    assert "Look at it with: negmeta data check" in capsys.readouterr().out
    images = datasets.load("mini-imagenet", "val", 16, str(there), tmp_path / "cache")
    assert images.class_names == ("n00000001",)
    assert cli.main(["data", "fetch", "mini-imagenet", "--data-dir", str(there)]) == 0
    assert len(server.ranges) == 3


def test_fetch_omniglot_unpacks_what_torchvision_names(server, tmp_path, monkeypatch, capsys):
    from torchvision.datasets import Omniglot

    md5s = {}
    for part, n_alphabets in (("images_background", 6), ("images_evaluation", 1)):
        for a in range(n_alphabets):
            folder = tmp_path / part / part / f"{part[7:9]}{a}" / "character01"
            folder.mkdir(parents=True)
            Image.new("1", (105, 105)).save(folder / "0001_01.png")
        packed = make.pack(tmp_path / part, tmp_path / f"{part}.zip")
        server.files[f"/{part}.zip"] = packed.read_bytes()
        md5s[part] = md5_of(packed)
    monkeypatch.setattr(Omniglot, "download_url_prefix", server.url)
    monkeypatch.setattr(Omniglot, "zips_md5", md5s)
    there = tmp_path / "data"
    command = ["data", "fetch", "omniglot", "--data-dir", str(there)]
    second = server.files.pop("/images_evaluation.zip")
    assert cli.main(command) == 2
    server.files["/images_evaluation.zip"] = second
    for said in ("is there already", "omniglot is in"):  # what came before it broke off stays
        assert cli.main(command) == 0
        assert said in capsys.readouterr().out
    assert len(server.ranges) == 3
    assert sorted(p.name for p in (there / "omniglot").glob("[!.]*")) == sorted(md5s)
    assert datasets.load("omniglot", "train", 28, str(there), tmp_path / "cache").n_classes == 5


def test_where_unpacking_fills_the_disk_no_other_folder_is_named(tmp_path, monkeypatch):
    def full(archive, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_extract_zip", full)
    packed = tmp_path / "a.zip"
    packed.write_bytes(b"PK\3\4")
    with pytest.raises(OSError, match=r"No space left on device\); make room there$"):
        fetch._unpack([packed], tmp_path)


def test_what_could_not_be_unpacked_is_unpacked_by_the_same_call_again(tmp_path, monkeypatch):
    packed = []
    for name in ("one", "two"):
        (tmp_path / "from" / name / name).mkdir(parents=True)
        (tmp_path / "from" / name / name / "a").touch()
        packed.append(make.pack(tmp_path / "from" / name, tmp_path / f"{name}.zip"))
    extract = archives.extract

    def full(archive, *rest):
        if archive.name == "two.zip":
            raise OSError(f"{archive}: no room")
        extract(archive, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(archives, "extract", full)
        with pytest.raises(OSError, match="no room"):
            fetch._unpack(packed, tmp_path)
    assert all(path.exists() for path in packed) and not (tmp_path / "one").exists()
    fetch._unpack(packed, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert names == ["from", "one", "two"] and (tmp_path / "two" / "a").exists()


def test_fetch_cifar_fs_takes_cifar_100_as_torchvision_names_it(server, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR100

    names = sum(CIFAR_FS.values(), [])
    make.write_cifar(tmp_path / "c", {n: np.zeros((2, 32, 32, 3), np.uint8) for n in names})
    packed = make.pack(tmp_path / "c", tmp_path / "cifar.tar.gz", "cifar-100-python")
    server.files["/cifar.tar.gz"] = packed.read_bytes()
    monkeypatch.setattr(CIFAR100, "url", f"{server.url}/cifar.tar.gz")
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5_of(packed))
    there = tmp_path / "data"
    assert cli.main(["data", "fetch", "cifar-fs", "--data-dir", str(there)]) == 0
    images = datasets.load("cifar-fs", "test", None, str(there), tmp_path / "cache")
    assert images.class_names == tuple(CIFAR_FS["test"])
    assert images.image_size == 32


@pytest.mark.parametrize("name", ["glyphs", "folder:x", "tiered-imagenet"])
def test_what_cannot_be_fetched_is_named(name, tmp_path, capsys):
    assert cli.main(["data", "fetch", name, "--data-dir", str(tmp_path / "new")]) == 2
    assert "NAME is mini-imagenet, cifar-fs or omniglot" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
