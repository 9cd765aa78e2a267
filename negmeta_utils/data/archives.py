"""Archives of data sets, unpacked without trusting them.

Only plain files and folders are taken out. An archive that holds a link, or a name that leads out
of the folder it is unpacked into, is refused whole.
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from negmeta_utils.data import pickles

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
ELSEWHERE = "make room there, or set NEGMETA_CACHE to another folder"
BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
    NotImplementedError,  # a compression that Python does not know
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether `path` is a file with an archive's name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


@contextmanager
def opened(source: Path, scratch: Path) -> Iterator[Path]:
    """The folder `source`, or a folder with the content of the archive `source`: a temporary one
    below `scratch`, removed in the end.

    Raises ValueError for an archive that is refused or damaged, OSError where there is no room.
    What the caller finds wrong with a file within is said of the archive.
    """
    if not is_archive(source):
        yield source
        return
    with _scratch_folder(source, scratch) as folder:
        extract(source, folder)
        try:
            yield folder
        except (ValueError, FileNotFoundError) as error:
            kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
            raise kind(str(error).replace(str(folder), str(source))) from error


@contextmanager
def _scratch_folder(source: Path, scratch: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        try:
            stack.enter_context(made(scratch))
            folder = tempfile.TemporaryDirectory(prefix=".unpacked-", dir=scratch)
        except OSError as error:
            raise OSError(
                f"{scratch}: {source.name} cannot be unpacked there ({error}); {ELSEWHERE}"
            ) from error
        yield Path(stack.enter_context(folder))


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, and then removed again if nothing is left in it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def extract(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`. Raises as `opened`."""
    pickles.refuse_html(archive)
    try:
        if archive.name.lower().endswith(".zip"):
            _extract_zip(archive, folder)
        else:
            _extract_tar(archive, folder)
    except BROKEN as error:
        raise ValueError(f"{archive}: not a whole archive ({error}); fetch it again") from error
    except OSError as error:
        raise OSError(
            f"{archive}: cannot be unpacked below {folder.parent} ({error}); {ELSEWHERE}"
        ) from error


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            _refuse(archive, member.name, member.issym() or member.islnk())
            if not (member.isfile() or member.isdir()):
                raise ValueError(
                    f"{archive}: refused, for {member.name} in it is neither a file nor a folder; "
                    "pack the images alone"
                )
            tar.extract(member, folder, filter="data")


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        for member in members:
            _refuse(archive, member.filename, stat.S_ISLNK(member.external_attr >> 16))
            if member.flag_bits & 1:
                raise ValueError(f"{archive}: encrypted; unpack it yourself and name the folder")
        needed = sum(member.file_size for member in members)
        if needed > shutil.disk_usage(folder).free:
            raise OSError(f"{needed / 1e9:.1f} GB are needed, and there is no room for them")
        packed.extractall(folder)


def _refuse(archive: Path, name: str, is_link: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link:
        raise ValueError(f"{archive}: refused, for {name} in it is a link; pack the files instead")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{archive}: refused, for {name} leads out of the folder it is unpacked into; pack it "
            "again with plain names"
        )
