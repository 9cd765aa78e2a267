"""Names that come from files, and errors that hold them: data, never markup, always one line."""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def shown(text: object) -> str:
    """`text` for a line of a terminal or a message: line breaks are blanks, and what does not
    print (control characters, bytes that are no UTF-8, marks that turn the direction of writing)
    is written as an escape."""
    line = " ".join(str(text).splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its kind where it says nothing."""
    said = str(error).strip().splitlines()
    return shown(said[0])[:200] if said else type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says, where it says something."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def nearest(name: str, names: Iterable[str]) -> str:
    """For a message: the most similar of `names`, or nothing."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f" (nearest: {close[0]!r})" if close else ""


def class_name(raw: str) -> str:
    """The name of a class as it is shown and compared: without blanks at its ends and invisible
    characters, its accents composed. Two raw names that look alike give the same."""
    composed = unicodedata.normalize("NFC", raw)
    visible = "".join(c for c in composed if unicodedata.category(c) != "Cf")
    return shown(" ".join(visible.split()))


def stays_below(name: str) -> bool:
    """Whether a relative path leads to something below the folder it is joined to."""
    parts = name.replace("\\", "/").split("/")
    return bool(name) and "\0" not in name and not os.path.isabs(name) and ".." not in parts


@contextmanager
def one_line(place: object) -> Iterator[None]:
    """Whatever goes wrong within is raised as ValueError or OSError of one line that names a
    place: the file that the system names, or else `place`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise in_one_line(error, place) from error
    except MemoryError as error:
        raise OSError(
            f"{shown(place)}: does not fit in memory; free some, or make it less"
        ) from error
    except Exception as error:  # damaged or crafted content can raise errors of any kind
        said = shown(error)[:200] or "no more is known"
        raise ValueError(
            f"{shown(place)}: cannot be read ({type(error).__name__}: {said}); check that it is "
            "what it should be"
        ) from error


def in_one_line(error: ValueError | OSError, place: object) -> ValueError | OSError:
    """`error` in one line that names a place, as `one_line`."""
    if isinstance(error, OSError) and error.errno is not None:  # by the system, not by this package
        where = shown(os.fsdecode(error.filename) if error.filename else place)
        text = f"{where}: {error.strerror}; correct the path, or make it readable and writable"
        return FileNotFoundError(text) if isinstance(error, FileNotFoundError) else OSError(text)
    if isinstance(error, UnicodeError):
        return ValueError(
            f"{shown(place)}: holds a text that cannot be read ({shown(error)[:200]})"
        )
    try:
        return type(error)(shown(error))
    except TypeError:  # of a kind that takes more than a text, such as json's
        return (OSError if isinstance(error, OSError) else ValueError)(shown(error))
