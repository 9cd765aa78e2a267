"""`import negmeta_utils as nm`: what a reader at a prompt sees."""

import ast
import pydoc
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import negmeta_utils as nm
from negmeta_utils.adaptation import adapt
from negmeta_utils.episodes import draw_episodes
from negmeta_utils.runs import load_run


def test_importing_the_package_imports_no_library():
    code = """
import sys
before = set(sys.modules)
import negmeta_utils
print(*{name.split(".")[0] for name in set(sys.modules) - before})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"negmeta_utils"}


def test_a_prompt_completes_to_the_public_names_and_no_more():
    assert dir(nm) == sorted(nm.__all__)
    assert {"TrainConfig", "train", "load_run", "claims", "METHODS"} <= set(dir(nm))
    assert len(dir(nm)) <= 20


@pytest.mark.parametrize("name", nm.__all__)
def test_every_public_name_is_there(name):
    value = getattr(nm, name)
    assert not callable(value) or value.__doc__


def test_editors_are_told_of_the_same_names():
    """They read imports, and do not run `__getattr__`."""
    told = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(ast.parse(Path(nm.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("negmeta_utils")
        for alias in node.names
    }
    assert set(told) == set(nm.__all__)
    for name, (module, name_there) in told.items():
        assert getattr(import_module(module), name_there) is getattr(nm, name)


def test_a_public_name_is_what_its_module_has():
    assert nm.adapt is adapt
    assert nm.load_run is load_run


def test_another_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="module 'negmeta_utils' has no attribute 'trian'"):
        _ = nm.trian


def test_help_says_how_to_begin():
    text = pydoc.render_doc(nm, renderer=pydoc.plaintext)
    for name in ("nm.load_pretrained", "nm.train", "nm.evaluate_features"):
        assert name in text


def test_what_is_large_shows_itself_in_a_line(run, images, random_images):
    assert repr(run) == f"Run({run.name}: meta-sgd on mini-imagenet, seed 0, after 12 meta-updates)"
    assert repr(random_images).startswith("ImageSet(")
    episodes = draw_episodes(random_images, 0, "train", range(2), 3, 1, 2)
    task = draw_episodes(images, 0, "train", range(1), 2, 1, 2)
    gradient = nm.meta_gradient(run.params, run.alpha, task, 1)
    for value in (run, random_images, episodes, gradient, *nm.NETWORKS.values()):
        assert len(repr(value)) < 120
        assert "\n" not in repr(value)
