"""What pyproject.toml and constraints.txt say of dependencies, held against what is imported."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from negmeta_utils.storage import paths

with open(paths.ROOT / "pyproject.toml", "rb") as file:
    PROJECT = tomllib.load(file)["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Used without an import: programs and kernels of their own, and what the study was asked to have.
NOT_IMPORTED = {
    "main": {"jupyterlab", "nbval", "cryptography"},
    "test": {"pytest-xdist", "setuptools", "mypy", "pre-commit", "ruff"},
}
# Imported, and there with what is declared and needs them.
BROUGHT = {
    "distributed": "dask", "boto3": "moto", "click": "papermill", "nbclient": "nbconvert",
    "packaging": "pytest", "triton": "torch",
}  # fmt: skip
OPTIONAL = {"learn2learn"}  # compared with where it is installed


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    names = [normal(Requirement(text).name) for text in requirements]
    assert len(set(names)) == len(names), "one is listed twice"
    return set(names) - {"negmeta-utils"}


MAIN, TEST, BENCH = (
    declared(listed) for listed in (PROJECT["dependencies"], EXTRAS["test"], EXTRAS["bench"])
)


def imported(*folders):
    """The distributions that the modules in these folders import, anywhere in them."""
    own = {path.stem for folder in ("tests", "tools") for path in (paths.ROOT / folder).rglob("*")}
    own |= {"negmeta_utils", "benchmarks", "tests", *sys.stdlib_module_names}
    modules = set()
    for folder in folders:
        for path in (paths.ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules.add(node.module.split(".")[0])
    known = packages_distributions()
    names = {normal(known.get(module, [module])[0]) for module in modules - own}
    return {BROUGHT.get(name, name) for name in names} - OPTIONAL


@pytest.mark.slow
def test_the_package_imports_what_is_declared_and_nothing_else():
    assert imported("negmeta_utils") == MAIN - NOT_IMPORTED["main"]


@pytest.mark.slow
def test_tests_and_benchmarks_import_what_is_declared_and_nothing_else():
    assert imported("benchmarks") - MAIN == BENCH
    assert imported("tests", "tools") - MAIN - BENCH == TEST - NOT_IMPORTED["test"]
    assert not MAIN & TEST and not MAIN & BENCH and not TEST & BENCH


def test_the_lock_has_an_exact_version_of_every_dependency_that_is_allowed():
    locked = dict(
        line.split("==") for line in (paths.ROOT / "constraints.txt").read_text().splitlines()
    )
    locked = {normal(name): Version(version) for name, version in locked.items()}
    for text in [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["bench"]]:
        requirement = Requirement(text)
        if normal(requirement.name) != "negmeta-utils":
            assert locked[normal(requirement.name)] in requirement.specifier, text


def test_make_says_what_it_downloads_and_how_to_have_less(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(paths.ROOT / name, tmp_path)
    said = subprocess.run(
        ["make", "-n", "study", "INDEX=ADDRESS"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0"},
    ).stdout  # fmt: skip
    (install,) = (line for line in said.splitlines() if "pip install" in line)
    assert "--quiet" not in install
    assert "--extra-index-url ADDRESS" in install
    assert "--constraint constraints.txt" in install
    said = subprocess.run(
        ["make", "sizes"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    downloaded, installed = re.findall(r"[\d.]+ GB", said)[:2]
    readme = (paths.ROOT / "README.md").read_text()
    assert f"about {downloaded} are downloaded and {installed} installed" in readme
    assert "make study INDEX=" in said
