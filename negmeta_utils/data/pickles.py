"""Reads pickles of arrays without running anything that a pickle may ask for.

A pickle is a program, and the public data sets come as pickles. Here its every call goes to one of
the few stand-ins of `ADMITTED`, which take apart what the pickle says of an array and build the
array from plain bytes; neither NumPy's own reconstruction nor any other function is within reach.
Admitted are what such files hold: arrays and scalars of numbers and of bytes, dictionaries, lists,
tuples, texts and numbers, as written by Python 2 or 3 and NumPy 1 or 2.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Integers, floats, booleans and byte strings; never objects, and never a structure.
ADMITTED_DTYPE = re.compile(r"[<>|=]?[iufbS]\d*")
HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", re.I | re.S)


def load(path: Path) -> Any:
    """The content of the pickle at `path`; texts that Python 2 wrote are bytes (`text`).

    Raises ValueError where it is no pickle, is cut short or asks for anything not admitted.
    """
    refuse_html(path)
    with path.open("rb") as file:
        try:
            return _plain(_Unpickler(file, encoding="bytes").load())
        except OSError:
            raise
        except Exception as error:  # a malformed pickle makes the machine fail in any way
            raise ValueError(
                f"{path}: not a pickle of arrays, or cut short ({_line(error)}); fetch it again"
            ) from error


def text(value: str | bytes) -> str:
    """A text as Python 3 or Python 2 wrote it."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def refuse_html(path: Path) -> None:
    """Raise ValueError where `path` is a web page: what a refused download leaves."""
    with path.open("rb") as file:
        if HTML.match(file.read(1024)):
            raise ValueError(
                f"{path}: an HTML page, not data (a download that asked for a login or a "
                "confirmation); delete it and fetch the data again"
            )


class _Array:
    """What a pickle says of one array; `array` once its state is there."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        flat = np.frombuffer(_bytes(raw), dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """What a pickle says of a type of numbers."""

    def __init__(self, name: str | bytes, *_: object):
        if not ADMITTED_DTYPE.fullmatch(text(name)):
            raise pickle.UnpicklingError(f"type {text(name)!r} is not admitted")
        self.dtype = np.dtype(text(name))

    def __setstate__(self, state: tuple) -> None:
        order, structure = text(state[1]), state[2:5]
        if structure != (None, None, None) or order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("structured types are not admitted")
        self.dtype = self.dtype.newbyteorder(order)


class _Call:
    """One admitted call. A pickle holds it in its hands, so it has no state to set and no
    attribute that could be reached."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function's state is not admitted")


def _from_buffer(
    raw: bytes, dtype: _Dtype, shape: tuple, order: str, axes: tuple | None = None
) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    if axes is not None:  # NumPy 2.3 and later keep the order of axes apart
        array.array = array.array.transpose(axes)
    return array


def _scalar(dtype: _Dtype, raw: str | bytes) -> object:
    return np.frombuffer(_bytes(raw), dtype.dtype, count=1)[0].item()


def _encode(value: str, codec: str) -> bytes:
    if codec != "latin1":
        raise pickle.UnpicklingError(f"codec {codec!r} is not admitted")
    return value.encode("latin1")


def _bytes(raw: str | bytes) -> bytes:
    return raw.encode("latin1") if isinstance(raw, str) else raw


def _admitted() -> dict[tuple[str, str], object]:
    calls: dict[tuple[str, str], object] = {
        ("_codecs", "encode"): _Call(_encode),
        ("collections", "OrderedDict"): _Call(dict),
        ("collections", "defaultdict"): _Call(lambda *_: {}),
        ("numpy", "dtype"): _Call(_Dtype),
        ("numpy", "ndarray"): _Call(lambda *_: None),  # only ever handed to _reconstruct
    }
    for module in ("builtins", "__builtin__"):
        calls[module, "list"] = _Call(list)  # a defaultdict's factory
        calls[module, "bytearray"] = _Call(bytearray)
        calls[module, "bytes"] = _Call(lambda: b"")  # how old protocols write no bytes at all
    for package in ("numpy.core", "numpy._core"):
        calls[f"{package}.multiarray", "_reconstruct"] = _Call(lambda *_: _Array())
        calls[f"{package}.multiarray", "scalar"] = _Call(_scalar)
        calls[f"{package}.numeric", "_frombuffer"] = _Call(_from_buffer)
    return calls


ADMITTED = _admitted()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return ADMITTED[module, name]


def _plain(value: object) -> object:
    """`value` with arrays in place of what was said of them, to the depth such files have."""
    if isinstance(value, dict):
        return {key: _plain(v) if isinstance(v, _Array | dict) else v for key, v in value.items()}
    return value.array if isinstance(value, _Array) else value


def _line(error: Exception) -> str:
    return " ".join(f"{error or type(error).__name__}".split())[:200]
