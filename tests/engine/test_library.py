"""How the C sources are compiled and kept, on a source of a line: what is loaded is what this user
compiled from them."""

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from negmeta_utils.engine import library
from negmeta_utils.storage import paths

if shutil.which("cc") is None:
    pytest.skip("no C compiler", allow_module_level=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; the sources are a function that says 7."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "small.c").write_text("int seven(void) { return 7; }\n")
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "own_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv("CC", raising=False)
    library._library.cache_clear()
    # A process maps a file of one name once: each load is of a copy, as in a new process.
    load, copies = ctypes.CDLL, itertools.count()
    monkeypatch.setattr(
        ctypes, "CDLL", lambda path: load(shutil.copy(path, tmp_path / f"copy{next(copies)}"))
    )
    yield tmp_path / "cache"
    library._library.cache_clear()


def compiled(cache):
    """The one library there, as a new process would find it, after it was loaded by one."""
    library._library.cache_clear()
    assert library.library().seven() == 7
    (path,) = cache.rglob("*.so")
    return path


def test_it_is_compiled_once_for_this_user_alone(cache):
    path = compiled(cache)
    file = path.stat().st_ino
    assert compiled(cache).stat().st_ino == file
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("compiler", ["cc -O2", "{wrapper} cc", "'{wrapper}' cc -O1"])
def test_cc_may_hold_a_wrapper_and_options(compiler, cache, tmp_path, monkeypatch):
    wrapper = tmp_path / "a wrapper" if "'" in compiler else tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", compiler.format(wrapper=wrapper))
    compiled(cache)
    assert library.compiler_version()


@pytest.mark.parametrize("option", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations"])
def test_options_in_cc_change_no_digit(option, cache, tmp_path, monkeypatch):
    """-ffast-math reorders sums, and turns small numbers to zero in all of the process."""
    source = "float lost(float a, float b) { return (a + b) - a; }"
    (tmp_path / "sources" / "sum.c").write_text(source)
    monkeypatch.setenv("CC", f"cc {option}")
    compiled(cache)
    lost = library.library().lost
    lost.restype, lost.argtypes = ctypes.c_float, [ctypes.c_float] * 2
    assert lost(1e8, 1) == 0
    assert torch.tensor([1e-39]).mul(1).item() > 0


@pytest.mark.slow
def test_processes_that_all_need_it_first_compile_it_once(cache, tmp_path):
    """As the kernels of a study do that start together."""
    wrapper = tmp_path / "slow"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\nsleep 0.3\nexec cc "$@"\n')
    wrapper.chmod(0o755)
    code = (
        "from pathlib import Path; from negmeta_utils.engine import library; "
        f"library.SOURCES = Path({str(library.SOURCES)!r}); print(library.library().seven())"
    )
    own = {**os.environ, "CC": str(wrapper)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=own)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == ["7", "7"]
    assert (tmp_path / "log").read_text().count("-shared") == 1


def test_threads_that_all_need_it_first_compile_it_once(cache, monkeypatch):
    runs, run = [], library._run
    monkeypatch.setattr(library, "_run", lambda command: (runs.append(command), run(command)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(library.library, [32] * 4))
    assert None not in found
    assert len(set(map(id, found))) == 1
    assert len(runs) == 2, "the source, and the library of its object"


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def without_digest(path):
    path.write_bytes(path.read_bytes()[:-32])


def link(path):
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("damage", [cut, change, empty, without_digest, link])
def test_what_is_not_as_written_is_made_again(damage, cache):
    path = compiled(cache)
    size = path.stat().st_size
    damage(path)
    library._library.cache_clear()
    assert library.library().seven() == 7
    assert not path.is_symlink()
    assert path.stat().st_size == size and library._is_whole(path)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_what_lies_where_others_can_write_is_not_loaded(mode, cache):
    path = compiled(cache)
    planted = path.with_name("planted.so")
    planted.write_text("by another")
    path.parent.chmod(mode)
    compiled(cache)
    assert not planted.exists()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def of_another_user(folder):
    if os.getuid():
        pytest.skip("only root can give a folder away")
    os.chown(folder, 4711, 4711)


@pytest.mark.parametrize(
    ("change", "is_used"),
    [
        (lambda shared: shared.chmod(0o1777), True),
        (lambda shared: shared.chmod(0o777), False),
        (lambda shared: shared.chmod(0o775), False),
        (lambda shared: shared.parent.chmod(0o777), False),
        (of_another_user, False),
    ],
    ids=["sticky", "open to all", "open to a group", "in an open folder", "of another user"],
)
def test_a_shared_cache_holds_code_only_where_nobody_can_replace_it(
    change, is_used, cache, tmp_path, monkeypatch
):
    """Data are read from it all the same."""
    shared = tmp_path / "of all" / "shared"
    shared.mkdir(parents=True)
    change(shared)
    monkeypatch.setenv("NEGMETA_CACHE", str(shared))
    compiled(shared if is_used else cache)
    assert not list((cache if is_used else shared).rglob("*.so"))


def test_what_no_version_uses_any_more_goes_when_more_is_compiled(cache, monkeypatch):
    used = compiled(cache)
    old, new = used.with_name("old.so"), used.with_name("new.so")
    new.touch()
    for path, days in ((used, 1000), (old, 91), (new, 89)):
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    library._library.cache_clear()
    assert library.library().seven() == 7
    assert old.exists(), "nothing was compiled"
    monkeypatch.setenv("CC", "cc -O1")
    library._library.cache_clear()
    assert library.library().seven() == 7
    assert used.exists() and new.exists() and not old.exists()


def test_a_folder_of_another_user_is_not_used_and_that_is_said(cache, monkeypatch):
    planted = compiled(cache)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    planted.parent.rename(cache / "code-4711")
    library._library.cache_clear()
    with pytest.warns(UserWarning, match="code-4711: not a folder of this user's"):
        assert library.library() is None


def test_a_link_in_place_of_the_folder_is_not_followed(cache, tmp_path):
    folder = compiled(cache).parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    library._library.cache_clear()
    with pytest.warns(UserWarning, match="nothing in it is loaded"):
        assert library.library() is None


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "cc -no-such-option", "'cc"])
def test_that_it_cannot_be_compiled_is_said_once_in_one_line(compiler, cache, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [library.library() for _ in range(3)] == [None] * 3
    (said,) = (str(warning.message) for warning in caught)
    assert said.startswith("the C sources of the engine are not used")
    assert "\n" not in said
    assert not list(cache.rglob("*.so"))


def test_where_nothing_can_be_kept_that_is_said(cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match=f"{tmp_path}/file/below: cannot be written to"):
        assert library.library() is None
