"""Pickles: what NumPy wrote is read as it was; what else a pickle may ask for never runs."""

import builtins
import collections
import os
import pickle
import subprocess
import sys

import data_makers as make
import numpy as np
import pytest

from negmeta_utils.data import pickles

ARRAYS = {
    "uint8": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "Fortran order": np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
    "axes turned": np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1),
    "not contiguous": np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
    "big-endian": np.arange(5, dtype=">i4"),
    "empty": np.zeros((0, 84, 84, 3), np.uint8),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy_1", [True, False])
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_read_as_numpy_reads_them(kind, protocol, numpy_1, tmp_path):
    raw = pickle.dumps({"data": ARRAYS[kind], "row": [np.int64(7)]}, protocol)
    if numpy_1 and protocol < 4:  # there a module is a line of its own
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
