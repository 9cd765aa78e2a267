"""Archives of data sets, unpacked without trusting them.

Only plain files and folders are taken out. An archive that holds anything else, a name that leads
out of the folder it is unpacked into, or far more than its own length, is refused whole.
"""

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from negmeta_utils.data import bounds, pickles, scratch
from negmeta_utils.data.names import shown, stays_below
from negmeta_utils.storage import atomic

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
# Suffixes of archives that are not read.
OTHERS = (
    ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".tar.zst", ".tzst", ".tar.lzma", ".tar.z",
    ".7z", ".rar", ".gz", ".xz", ".bz2", ".zst",
)  # fmt: skip
PACKERS = {
    b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"(\xb5/\xfd": "Zstandard", b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
}  # fmt: skip
READ = "what is read is .tar.gz, .tgz, .tar and .zip"
MAX_DEPTH, MAX_NAME = 32, 1024  # folders and bytes in a name: no layout needs a tenth of it
MANY = 100_000  # members; fewer are no danger, however little they hold
BLOCK = 512  # bytes, of a tar: what a member takes at least
LONGEST_READ = 1 << 16  # bytes; tarfile reads contents in small pieces, so more is a bogus header
OTHER_CACHE = scratch.ELSEWHERE.format("NEGMETA_CACHE")
BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether `path` is a file with an archive's name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


@contextmanager
def opened(source: Path, below: Path, if_full: str = OTHER_CACHE) -> Iterator[Path]:
    """`source` itself where it is a folder; of an archive, a temporary folder in `below` with its
    content, removed in the end. if_full: what to do where there is no room, for the message.

    Raises ValueError for an archive that is refused or damaged, OSError where there is no room.
    Errors of the caller that name the temporary folder name the archive instead.
    """
    if not is_archive(source):
        yield source
        return
    with scratch.folder(below) as folder:
        extract(source, folder, if_full)
        try:
            yield folder
        except (ValueError, FileNotFoundError) as error:
            kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
            raise kind(str(error).replace(str(folder), str(source))) from error


def extract(archive: Path, folder: Path, if_full: str = OTHER_CACHE) -> None:
    """Unpack `archive` into the empty `folder`. Raises as `opened`."""
    pickles.refuse_html(archive)
    with archive.open("rb") as file:
        beginning = file.read(262)
    for magic, packer in PACKERS.items():
        if beginning.startswith(magic):
            raise ValueError(f"{archive}: packed by {packer}; {READ}: pack it again")
    by_name = archive.name.lower().endswith(".zip")
    is_zip = beginning[:2] == b"PK" or (by_name and not _looks_like_tar(beginning))
    try:
        if is_zip:
            _extract_zip(archive, folder)
        else:
            _extract_tar(archive, folder)
    except BROKEN as error:
        raise ValueError(f"{archive}: not a whole archive ({error}); fetch it again") from error
    except NotImplementedError as error:
        raise ValueError(f"{archive}: {error}; pack it again, or as .tar.gz") from error
    except OSError as error:
        if error.errno is None:
            raise
        is_full = error.errno in atomic.FULL
        remedy = if_full if is_full else "pack it again with plain names"
        raise OSError(
            f"{archive}: cannot be unpacked below {folder.parents[1]} ({error.strerror}); {remedy}"
        ) from error


def _looks_like_tar(beginning: bytes) -> bool:
    return beginning[:2] == b"\x1f\x8b" or beginning[257:262] == b"ustar"


class _ShortReads:
    """The file of a tar, which refuses reads as long as only a false header asks for. last: the
    bytes read last."""

    def __init__(self, file: io.BufferedIOBase):
        self.seek, self.tell, self.close, self._read = file.seek, file.tell, file.close, file.read
        self.last = b""

    def read(self, n_bytes: int) -> bytes:
        if not 0 <= n_bytes <= LONGEST_READ:
            raise tarfile.ReadError(f"a name of {n_bytes} bytes")
        self.last = self._read(n_bytes)
        return self.last


def _extract_tar(archive: Path, folder: Path) -> None:
    length, taken = bounds.length_of(archive), _Taken(archive)
    with archive.open("rb") as raw:
        is_packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        plain = _ShortReads(gzip.GzipFile(fileobj=raw) if is_packed else raw)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            for member in tar:
                taken.refuse_wrong(member.name, member.issym() or member.islnk())
                if not (member.isfile() or member.isdir()) or member.issparse():
                    kind = "sparse" if member.issparse() else "neither a file nor a folder"
                    raise _refused(archive, member.name, f"{kind}; pack the images alone")
                taken.refuse_bomb(member.offset_data + member.size, length)
                bounds.refuse_beyond_disk(member.size, folder, f"the files in {archive}")
                if not (member.isdir() and member.name in ("", ".", "./")):
                    tar.extract(member, folder, set_attrs=False, filter="data")
        _refuse_without_end(archive, plain)


def _refuse_without_end(archive: Path, plain: _ShortReads) -> None:
    """What tarfile read last must be a block of zeros, with nothing behind it: it takes a header
    that is damaged or missing for the end as well, and whatever follows would not be there."""
    if plain.last != bytes(BLOCK):
        raise ValueError(f"{archive}: broken off or damaged, for it has no end; fetch it again")
    while more := plain.read(LONGEST_READ):
        if more.count(0) < len(more):
            raise ValueError(
                f"{archive}: holds more behind its end, such as a second archive; pack it again as "
                "one"
            )


def _extract_zip(archive: Path, folder: Path) -> None:
    length, taken = bounds.length_of(archive), _Taken(archive)
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            member.filename = member.filename.replace("\\", "/")  # of archivers on Windows
            taken.refuse_wrong(member.filename, stat.S_ISLNK(member.external_attr >> 16))
            if member.flag_bits & 1:
                raise ValueError(f"{archive}: encrypted; unpack it yourself and name the folder")
        needed = sum(member.file_size for member in members)
        taken.refuse_bomb(needed, length)
        bounds.refuse_beyond_disk(needed, folder, f"the files in {archive}")
        for member in members:
            packed.extract(member, folder)


class _Taken:
    """The names of an archive's members so far, and what is refused of the next one."""

    def __init__(self, archive: Path):
        self.archive, self.names = archive, set()

    def refuse_wrong(self, name: str, is_link: bool) -> None:
        if is_link:
            raise _refused(self.archive, name, "a link; pack the files instead")
        path = name.replace("\\", "/")
        if path and not stays_below(path):
            raise ValueError(
                f"{self.archive}: refused, for {_short(name)} leads out of the folder it is "
                "unpacked into; pack it again with plain names"
            )
        if path.count("/") > MAX_DEPTH or len(path) > MAX_NAME:
            raise _refused(self.archive, name, "too deep or too long; pack it with shorter names")
        path = path.removeprefix("./").rstrip("/")
        if path in self.names and not name.endswith(("/", ".")):
            raise _refused(self.archive, name, "there twice; pack it again")
        self.names.add(path)

    def refuse_bomb(self, unpacked: int, length: int) -> None:
        many = len(self.names) > MANY and BLOCK * len(self.names) > bounds.MAX_RATIO * length
        if many or bounds.is_bomb(unpacked, length):
            raise ValueError(
                f"{self.archive}: refused, for it unpacks to more than {bounds.MAX_RATIO} times "
                "its length, which no images do; check where it comes from"
            )


def _refused(archive: Path, name: str, what: str) -> ValueError:
    return ValueError(f"{archive}: refused, for {_short(name)} in it is {what}")


def _short(name: str) -> str:
    return shown(name if len(name) <= 80 else f"{name[:76]} ...")
