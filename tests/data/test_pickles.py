"""Pickles: what NumPy wrote is read as it was; what else a pickle may ask for never runs."""

import builtins
import collections
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
from pathlib import Path

import data_makers as make
import numpy as np
import pytest

from negmeta_utils.data import containers, pickles

ARRAYS = {
    "uint8": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "Fortran order": np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
    "axes turned": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    "not contiguous": np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
    "big-endian": np.arange(5, dtype=">i4"),
    "empty": np.zeros((0, 84, 84, 3), np.uint8),
}


@pytest.mark.parametrize(
    ("protocol", "numpy_1"),
    [*((p, False) for p in range(6)), (0, True), (2, True)],  # above 3 a module is no line
)
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_read_as_numpy_reads_them(kind, protocol, numpy_1, tmp_path):
    raw = pickle.dumps({"data": ARRAYS[kind], "row": [np.int64(7)]}, protocol)
    if numpy_1:
        raw = raw.replace(b"numpy._core", b"numpy.core")
    (tmp_path / "a.pkl").write_bytes(raw)
    content = pickles.load(tmp_path / "a.pkl")
    assert content["data"].dtype == ARRAYS[kind].dtype
    assert (content["data"] == ARRAYS[kind]).all()
    assert content["data"].shape == ARRAYS[kind].shape
    assert content["row"] == [7]


def test_pickles_of_python_2_are_read(tmp_path):
    (tmp_path / "a.pkl").write_bytes(make.python2_pickle({"data": ARRAYS["uint8"], "n": ["x"]}))
    content = pickles.load(tmp_path / "a.pkl")
    assert (content[b"data"] == ARRAYS["uint8"]).all()
    assert content[b"n"] == [b"x"]


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, {"a": [1]}),
        {"a": (1, 2.5, None, True, "text", b"raw")},
    ],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_plain_values_are_read(value, protocol, tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    assert pickles.load(tmp_path / "a.pkl") == value


class Calls:
    """Pickles as a call; its function may be the result of another."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """pickle wants whatever is to be called to be callable already."""


def called(module, name, argument):
    """The call in protocol 0, whether or not there is such a function."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def opening(canary):
    return f"open({str(canary)!r}, 'w').close()"


# What a crafted pickle may try, given a file that must not appear.
ATTACKS = {
    "os.system": lambda c: pickle.dumps(Calls(os.system, f"touch {c}")),
    "subprocess": lambda c: pickle.dumps(Calls(subprocess.check_call, ["touch", str(c)])),
    "eval": lambda c: pickle.dumps(Calls(builtins.eval, opening(c))),
    "exec, protocol 0": lambda c: pickle.dumps(Calls(builtins.exec, opening(c)), 0),
    "Python 2's builtins": lambda c: called("__builtin__", "eval", opening(c)),
    "getattr chain": lambda c: pickle.dumps(
        Calls(Calls(getattr, Calls(__import__, "os"), "system"), f"touch {c}")
    ),
    "deep in a dictionary": lambda c: pickle.dumps(
        {"image_data": [np.zeros(2), {"deep": Calls(os.system, f"touch {c}")}]}
    ),
    "in an array of objects": lambda c: pickle.dumps(
        np.array([Calls(os.system, f"touch {c}")], object)
    ),
    "a dictionary's key": lambda c: pickle.dumps({Calls(os.system, f"touch {c}"): 1}),
    "INST": lambda c: f"(S'touch {c}'\nios\nsystem\n.".encode(),
    "OBJ": lambda c: f"(cos\nsystem\nS'touch {c}'\no.".encode(),
    "numpy that executes": lambda c: (
        f"cnumpy.testing._private.utils\nrunstring\n(V{opening(c)}\n}}tR.".encode()
    ),
    "numpy that reads files": lambda c: called("numpy", "load", c),
    "numpy beyond the admitted": lambda c: called("numpy._core.multiarray", "fromfile", c),
    "dotted name": lambda c: (
        b"\x80\x04\x8c\x0bcollections\x8c\x20OrderedDict.__init__.__globals__\x93."
    ),
    "state of an admitted call": lambda c: b"cnumpy\ndtype\n}S'_function'\nK\x01sb.",
    "slots of an admitted call": lambda c: b"cnumpy\ndtype\n(N}S'_function'\nK\x01stb.",
    "NEWOBJ": lambda c: b"\x80\x02cnumpy\ndtype\n(S'u1'\nt\x81.",
    "extension code": lambda c: b"\x80\x02\x82\x01.",
    "persistent id": lambda c: b"Pos.system\n.",
    "codec that unpacks": lambda c: b"c_codecs\nencode\n(Vabc\nVzip\ntR.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_crafted_pickle_runs_nothing(attack, tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "crafted.pkl"
    path.write_bytes(ATTACKS[attack](canary))
    with pytest.raises(ValueError, match="not a pickle of arrays") as raised:
        pickles.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not canary.exists()


def test_the_attacks_are_real(tmp_path):
    """Plain pickle runs the first dozen, or the test above would prove nothing."""
    for number, craft in enumerate(ATTACKS.values()):
        (tmp_path / f"{number:02d}.pkl").write_bytes(craft(tmp_path / f"{number:02d}.canary"))
    script = """
import pathlib, pickle, sys
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pkl")):
    try:
        pickle.loads(path.read_bytes())
    except Exception:
        pass
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True)
    assert sorted(p.stem for p in tmp_path.glob("*.canary")) == [f"{n:02d}" for n in range(12)]


@pytest.mark.parametrize(
    "dtype", ["O", "|O8", "V8", "U4", "M8[s]", "i4,O", "({'names': []})", "c16"]
)
def test_types_that_can_hold_more_than_numbers_are_refused(dtype, tmp_path):
    raw = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR." % dtype.encode().replace(b"'", b"")
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(ValueError, match="is not admitted"):
        pickles.load(tmp_path / "a.pkl")


def test_a_structure_in_the_state_of_a_plain_type_is_refused(tmp_path):
    raw = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\nt}I8\nI1\nI0\ntb."
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(ValueError, match="structured types are not admitted"):
        pickles.load(tmp_path / "a.pkl")


def test_an_array_larger_than_its_bytes_is_refused(tmp_path):
    """A shape that does not match would read memory that is not the pickle's."""
    raw = pickle.dumps(np.zeros(77, np.uint8), 2)
    assert raw.count(b"K\x4d") == 1
    (tmp_path / "a.pkl").write_bytes(raw.replace(b"K\x4d", b"M\xff\xff"))
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        pickles.load(tmp_path / "a.pkl")


@pytest.mark.parametrize("kept", [0, 1, 50, -1])
def test_a_pickle_cut_short_is_named(kept, tmp_path):
    raw = pickle.dumps({"data": ARRAYS["uint8"]}, 4)
    (tmp_path / "a.pkl").write_bytes(raw[:kept])
    with pytest.raises(ValueError, match="not a pickle of arrays, or cut short"):
        pickles.load(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html>", b"\n  <html lang='en'>", b"<!-- x -->\n<HEAD>"]
)
def test_an_html_page_is_called_one(page, tmp_path):
    (tmp_path / "a.pkl").write_bytes(page + b"<body>Sign in</body>")
    with pytest.raises(ValueError, match="an HTML page, not data"):
        pickles.load(tmp_path / "a.pkl")


def nested(container, depth):
    """A few kB that are 2**depth values to whoever walks through them."""
    value = container((0, 1))
    for _ in range(depth):
        value = container((value, value))
    return value


def many_calls(argument, call):
    """One value, and hundreds of calls that each make a copy of it."""
    return b"".join([argument, b"q\0", b"0(", (call + b"h\0" + b"tR") * 300, b"l."])


TEXT = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
LARGE = {
    "a place in the memo": b"N" + b"r" + struct.pack("<I", 1 << 27) + b"Q.",
    "a bytearray of a number": b"cbuiltins\nbytearray\n(I1500000000\ntR.",
    "a list of it": b"cbuiltins\nlist\n(cbuiltins\nbytearray\n(I200000000\ntRtR.",
    "bytes beyond the end": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 34) + b"a.",
    "a bytearray beyond the end": b"\x80\x05\x96" + struct.pack("<Q", 1 << 34) + b"a.",
    "a text beyond the end": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 34) + b"a.",
    "a frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 34) + b"N.",
    "a long number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\1.",
    "digits": b"L" + b"9" * 10**6 + b"L\n.",
    "copies of a text as bytes": many_calls(TEXT, b"c_codecs\nencode\n("),
    "copies of it as bytearrays": many_calls(TEXT, b"cbuiltins\nbytearray\n("),
    "tuples in tuples as a key": b"\x80\x04}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "a key of 2**40 values": pickle.dumps(1)[:-2]
    + b"}"
    + pickle.dumps(nested(tuple, 40), 2)[2:-1]
    + b"Ns.",
    "keys that collide": pickle.dumps({n * (2**61 - 1): 0 for n in range(1, 3000)}),
    "fractions as keys": pickle.dumps({0.5: 1}),
    "a set of 2**40 values": b"\x80\x04\x8f(" + pickle.dumps(nested(tuple, 40), 2)[2:-1] + b"\x90.",
}


def limited(action, path):
    """In a child with 1 GB more than now: what it says within 20 s of a processor."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("tells memory by /proc, which Linux has")
    before = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (before + 10**9, before + 10**9))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        signal.alarm(600)  # a machine may pause; only what hangs is killed
        try:
            action(path)
            said = "taken"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "killed, or no answer"
    return said


@pytest.mark.parametrize("kind", LARGE)
def test_a_pickle_takes_no_more_than_its_length_allows(kind, tmp_path):
    path = tmp_path / "large.pkl"
    path.write_bytes(LARGE[kind])
    said = limited(pickles.load, path)
    assert said.startswith(f"ValueError: {path}: not a pickle of arrays"), said
    assert "MemoryError" not in said and "\n" not in said


def test_a_pickle_of_too_many_operations_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles._Operations, "left", 1000)
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + b"N0" * 1000 + b"N.")
    with pytest.raises(ValueError, match="more than 2000000 operations"):
        pickles.load(tmp_path / "a.pkl")


PIXELS = np.zeros((4, 8, 8, 3), np.uint8)
LISTS = {
    "rows within rows": {"n0": nested(list, 40)},
    "ragged rows": {"n0": [[0], [1, 2]]},
    "a row of two classes": {"n0": [0, 1], "n1": [1, 2, 3]},
    "a row of no class": {"n0": [0, 1]},
    "one name as text and as bytes": {"n0": [0, 1], b"n0": [2, 3]},
    "a name that is a number": {7: [0, 1, 2, 3]},
    "a dictionary of rows": {"n0": nested(lambda pair: dict(zip("ab", pair, strict=True)), 40)},
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_that_do_not_fit_the_images_are_refused_at_once(kind, tmp_path):
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps({"image_data": PIXELS, "class_dict": LISTS[kind]}))
    said = limited(lambda p: containers.CACHE_PICKLES.read([p], "train"), path)
    assert said.startswith(f"ValueError: {path}: "), said
