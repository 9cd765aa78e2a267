"""Downloads of the public data sets: resumed where they broke off, checked before they count.

A file arrives under its name with `.part` behind it, which a later call continues, and gets its
name when its size and MD5 are those of the record.
"""

import hashlib
import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from negmeta_utils import __version__
from negmeta_utils.data import archives, layouts, pickles
from negmeta_utils.data.datasets import DATASETS
from negmeta_utils.data.names import one_line, shown
from negmeta_utils.storage import atomic

ATTEMPTS = 5  # connections in one call, each going on where the last broke off
TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20
NETWORK = (ConnectionError, TimeoutError, ssl.SSLError)
# Sizes and MD5s are as others report them of the record: unverified here, where no network was.
ZENODO = "https://zenodo.org/records/7978538/files/mini-imagenet-cache-{}.pkl"
MINI_IMAGENET = {
    "train": (1145461190, "ee4e80dc7b716f3ceec891d199b5277a"),
    "validation": (292661258, "c1145a80890b88d54a67d6e0022d53a5"),
    "test": (353647539, "389b6c59d348b2e1ae9610f00a5e6724"),
}


class Remote(NamedTuple):
    """A file to download: where from, its MD5, and its size in bytes where that is known."""

    url: str
    md5: str
    size: int | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def remotes(name: str) -> list[Remote]:
    """What data set `name` is downloaded as. Raises ValueError where it cannot be."""
    if name == "mini-imagenet":
        return [Remote(ZENODO.format(part), md5, n) for part, (n, md5) in MINI_IMAGENET.items()]
    if name not in ("cifar-fs", "omniglot"):
        raise ValueError(f"{name}: cannot be fetched; NAME is mini-imagenet, cifar-fs or omniglot")
    from torchvision.datasets import CIFAR100, Omniglot  # it knows where they are; slow to import

    if name == "cifar-fs":
        return [Remote(CIFAR100.url, CIFAR100.tgz_md5)]
    prefix = Omniglot.download_url_prefix
    return [Remote(f"{prefix}/{part}.zip", md5) for part, md5 in Omniglot.zips_md5.items()]


def fetch(name: str, data_dir: Path, report: Callable[[str], None]) -> Path:
    """Download data set `name` into its folder below `data_dir`, and unpack it. Gives the folder.

    Raises ValueError for a file that is not the one of the record, OSError for a connection that
    broke off, a disk that is full or a folder that another process fetches to; what is whole stays.
    """
    with one_line(data_dir / name):
        return _fetch(name, data_dir / name, report)


def _fetch(name: str, folder: Path, report: Callable[[str], None]) -> Path:
    files = remotes(name)
    packed = [file.name.endswith(archives.SUFFIXES) for file in files]
    if all(packed) and _is_there(name, folder):
        report(f"{name} is in {folder} already")
        return folder
    with atomic.sole_user(folder):
        for file in files:
            download(file, folder / file.name, report)
        _unpack([folder / file.name for file in compress(files, packed)], folder)
    return folder


def download(file: Remote, path: Path, report: Callable[[str], None]) -> None:
    """Download `file` to `path`, unless it is there. Raises as `fetch`."""
    if path.is_file() and _md5(path) == file.md5:
        report(f"{path} is there already")
        return
    part = path.with_name(path.name + ".part")
    _receive_all(file, part)
    if _md5(part) != file.md5:
        try:
            pickles.refuse_html(part)
        finally:
            part.unlink()
        raise ValueError(
            f"{file.url}: what came is not the file of the record (its MD5 is {file.md5}); nothing "
            "was replaced: try again later, or get it elsewhere"
        )
    with part.open("rb") as whole:
        os.fsync(whole.fileno())
    os.replace(part, path)
    report(f"{path}: {path.stat().st_size} bytes, MD5 as recorded")


def _receive_all(file: Remote, part: Path) -> None:
    """Receive into `part` until it is whole, as far as its size tells."""
    reason = ""
    for _ in range(ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        try:
            if have and have == file.size:
                return
            if _receive(file, part, have):
                return
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
                raise OSError(
                    f"{file.url}: {_said(error)}; try later, or get it elsewhere"
                ) from error
            part.unlink()  # no such place in the file: begin again
        except (urllib.error.URLError, http.client.HTTPException, *NETWORK) as error:
            reason = shown(error)[:200]
    got = part.stat().st_size if part.exists() else 0
    raise OSError(
        f"{file.url}: broke off after {got} bytes{f' ({reason})' if reason else ''}; check the "
        "connection, and run the same command again to go on"
    )


def _said(error: urllib.error.HTTPError) -> str:
    if error.code in range(300, 400):
        return f"the server redirects, and in a circle or to no address (HTTP {error.code})"
    return shown(error)[:200]


def _receive(file: Remote, part: Path, have: int) -> bool:
    """Receive what follows the first `have` bytes in `part`; whether it is whole then."""
    headers = {"User-Agent": f"negmeta/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(file.url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if response.status != http.HTTPStatus.PARTIAL_CONTENT or not begins:
            have = (
                0  # the server does not resume, or elsewhere: what is wrong then shows in the MD5
            )
        length = response.headers.get("Content-Length") or ""
        whole = have + int(length) if re.fullmatch(r"\d{1,18}", length) else file.size
        if "html" in response.headers.get("Content-Type", ""):
            raise ValueError(f"{file.url}: the server sends an HTML page, not the file; try later")
        if file.size is not None and whole != file.size:
            raise ValueError(
                f"{file.url}: the server offers {whole} bytes, and the record says {file.size}; "
                "nothing was replaced: try later, or get it elsewhere"
            )
        if whole and whole - have > shutil.disk_usage(part.parent).free:
            raise OSError(f"{part.parent}: no room for {whole - have} bytes; make room there")
        with part.open("ab" if have else "wb") as out:
            have += _copy(response, out, file.name, have, whole)
    if whole is not None and have > whole:
        part.unlink()
        raise ValueError(f"{file.url}: the server sends more than the {whole} bytes of the record")
    return whole is None or have == whole


def _copy(response: BinaryIO, out: BinaryIO, name: str, have: int, whole: int | None) -> int:
    """Copy with a bar of progress, and stop beyond `whole` bytes. Gives the bytes copied."""
    copied = 0
    with tqdm(
        desc=name, initial=have, total=whole, unit="B", unit_scale=True, mininterval=1
    ) as progress:
        while chunk := response.read(CHUNK):
            try:
                out.write(chunk)
            except OSError as error:
                raise OSError(f"{out.name}: cannot be written ({error}); make room") from error
            copied += len(chunk)
            progress.update(len(chunk))
            if whole is not None and have + copied > whole:
                break
    return copied


def _is_there(name: str, folder: Path) -> bool:
    try:
        layouts.find(name, DATASETS[name].layouts, folder)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _unpack(packed: list[Path], folder: Path) -> None:
    """Move what is in these archives to `folder`, and remove them. Nothing is moved before all are
    unpacked, so that a call that was interrupted until then, or found no room, can be repeated."""
    with ExitStack() as held:
        found = [
            (archive, entry)
            for archive in packed
            for entry in held.enter_context(
                archives.opened(archive, folder, "make room there")
            ).iterdir()
        ]
        for archive, entry in found:
            if (folder / entry.name).exists():
                raise ValueError(
                    f"{folder / entry.name}: in the way of what {archive.name} holds; move it away"
                )
        for _, entry in found:
            os.replace(entry, folder / entry.name)
    for archive in packed:
        archive.unlink()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
