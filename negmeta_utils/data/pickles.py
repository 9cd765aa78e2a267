"""Reads pickles of arrays without running anything that a pickle may ask for.

A pickle is a program, and the public data sets come as pickles. Here its every call goes to one of
the few stand-ins of `_admitted`, which take apart what the pickle says of an array and build the
array from plain bytes; neither NumPy's own reconstruction nor any other function is within reach.
Admitted are what such files hold: arrays and scalars of numbers and of bytes, dictionaries, lists,
tuples, texts and numbers, as written by Python 2 or 3 and NumPy 1 or 2.

Nor can a pickle take more time or memory than its length allows: it cannot read beyond its file,
its calls make bytes in proportion to it, its operations are counted, and keys of dictionaries are
texts or small numbers (to hash tuples within tuples may take for ever, or all of the stack).
Python's own unpickler in Python is used, because the one in C allocates whatever a pickle asks for
and has no hooks for checks.
"""

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from negmeta_utils.data import bounds
from negmeta_utils.data.names import shown

MAX_OPERATIONS = 2_000_000  # some ten times what the public files take
MAX_KEY = 2**31  # whole numbers below have hashes of their own; larger ones can be made to collide
# Integers, floats, booleans and byte strings; never objects, and never a structure.
ADMITTED_DTYPE = re.compile(r"[<>|=]?[iufbS]\d*")
HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", re.I | re.S)


def load(path: Path) -> Any:
    """The content of the pickle at `path`; texts that Python 2 wrote are bytes: see `text`.

    Raises ValueError where it is no pickle, is cut short or asks for anything not admitted.
    """
    refuse_html(path)
    length = bounds.length_of(path)
    bounds.refuse_beyond_memory(3 * length, f"{path}: its arrays", "use another machine")
    with path.open("rb") as file:
        try:
            return _plain(_Unpickler(_Bounded(file, length), length).load())
        except OSError:
            raise
        except Exception as error:  # malformed pickles raise errors of any kind
            raise ValueError(
                f"{path}: not a pickle of arrays, or cut short ({_line(error)}); fetch it again"
            ) from error


def text(value: str | bytes) -> str:
    """`value` as a text; bytes are what Python 2 wrote. Raises ValueError for anything else."""
    if not isinstance(value, str | bytes):
        raise ValueError(f"a {type(value).__name__} where a text should be")
    return value.decode("latin1") if isinstance(value, bytes) else value


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
    """One admitted call. Pickles can reference this callable, so it exposes no state and no
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
    if codec != "latin1" or not isinstance(value, str):
        raise pickle.UnpicklingError(f"codec {codec!r} is not admitted")
    return value.encode("latin1")


def _bytearray(raw: str | bytes = b"", codec: str = "latin-1") -> bytearray:
    """A bytearray of given bytes. Of a number, it would be that many zeros: refused."""
    if codec not in ("latin-1", "latin1") or not isinstance(raw, str | bytes):
        raise pickle.UnpicklingError("a bytearray of something else is not admitted")
    return bytearray(_bytes(raw))


def _pairs(pairs: list | tuple = ()) -> dict:
    return {_key(key): value for key, value in pairs}


def _bytes(raw: str | bytes) -> bytes:
    return raw.encode("latin1") if isinstance(raw, str) else raw


def _admitted() -> dict[tuple[str, str], _Call]:
    calls: dict[tuple[str, str], _Call] = {
        ("_codecs", "encode"): _Call(_encode),
        ("collections", "OrderedDict"): _Call(_pairs),
        ("collections", "defaultdict"): _Call(lambda *_: {}),
        ("numpy", "dtype"): _Call(_Dtype),
        ("numpy", "ndarray"): _Call(lambda *_: None),  # only ever handed to _reconstruct
    }
    for module in ("builtins", "__builtin__"):
        calls[module, "list"] = _Call(lambda: [])  # a defaultdict's factory
        calls[module, "bytearray"] = _Call(_bytearray)
        calls[module, "bytes"] = _Call(lambda: b"")  # how old protocols write no bytes at all
    for package in ("numpy.core", "numpy._core"):
        calls[f"{package}.multiarray", "_reconstruct"] = _Call(lambda *_: _Array())
        calls[f"{package}.multiarray", "scalar"] = _Call(_scalar)
        calls[f"{package}.numeric", "_frombuffer"] = _Call(_from_buffer)
    return calls


ADMITTED = _admitted()


class _Bounded:
    """A file that is not asked for more than it holds."""

    def __init__(self, file: BinaryIO, length: int):
        self._file, self._length, self.readline = file, length, file.readline

    def read(self, n_bytes: int) -> bytes:
        if not 0 <= n_bytes <= self._length - self._file.tell():
            raise EOFError(f"{n_bytes} bytes asked for, beyond the end")
        return self._file.read(n_bytes)


class _Operations(dict):
    """The unpickler's function for each operation, given out MAX_OPERATIONS times in all."""

    left = MAX_OPERATIONS

    def __getitem__(self, operation: int) -> Callable:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"more than {MAX_OPERATIONS} operations")
        return super().__getitem__(operation)


def _key(key: object) -> object:
    """`key`, which is None, a text or a small whole number: it is hashed at once, and no pickle
    can choose keys whose hashes collide. Raises UnpicklingError for any other."""
    is_small = isinstance(key, int) and abs(key) < MAX_KEY
    if not (key is None or is_small or isinstance(key, str | bytes)):
        raise pickle.UnpicklingError(f"a key that is a {type(key).__name__} is not admitted")
    return key


class _Unpickler(pickle._Unpickler):
    """An unpickler of a file of `length` bytes, whose calls may make four times as many."""

    def __init__(self, file: _Bounded, length: int):
        super().__init__(file, encoding="bytes")
        self.dispatch = _Operations(self.operations)
        self._left = 4 * length + 2**20

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return ADMITTED[module, name]

    def load_reduce(self) -> None:
        arguments = self.stack[-1]
        self._left -= sum(8 * len(a) for a in arguments if isinstance(a, list | tuple))
        self._left -= sum(len(a) for a in arguments if isinstance(a, str | bytes | bytearray))
        if self._left < 0:
            raise pickle.UnpicklingError("more is made of its bytes than they are")
        super().load_reduce()

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], _Array | _Dtype | _Call):
            raise pickle.UnpicklingError("a state of something else is not admitted")
        if isinstance(self.stack[-2], _Array):  # texts are copied into it
            self._left -= sum(len(a) for a in self.stack[-1] if isinstance(a, str))
        if self._left < 0:
            raise pickle.UnpicklingError("more is made of its bytes than they are")
        super().load_build()

    def load_setitem(self) -> None:
        _key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            _key(key)
        super().load_setitems()

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            _key(key)
        super().load_dict()

    def load_bytearray(self) -> None:
        (n_bytes,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(n_bytes)))

    def refuse(self) -> None:
        raise pickle.UnpicklingError("an operation that arrays do not need is not admitted")

    operations = dict(pickle._Unpickler.dispatch) | {
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.BYTEARRAY8[0]: load_bytearray,
    }
    for _operation in (
        pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2,
        pickle.EXT4, pickle.PERSID, pickle.BINPERSID, pickle.EMPTY_SET, pickle.ADDITEMS,
        pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
    ):  # fmt: skip
        operations[_operation[0]] = refuse


def _plain(value: object) -> object:
    """`value` with arrays in place of what was said of them, to the depth such files have: a
    dictionary, and dictionaries in it."""
    if not isinstance(value, dict):
        return _array(value)
    return {
        key: {k: _array(v) for k, v in inner.items()} if isinstance(inner, dict) else _array(inner)
        for key, inner in value.items()
    }


def _array(value: object) -> object:
    return value.array if isinstance(value, _Array) else value


def _line(error: Exception) -> str:
    return shown(f"{error or type(error).__name__}"[:200])
