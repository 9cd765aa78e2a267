"""The package's folders: imports go one way, and the folders that need no torch know none.

Imports are read from the source, those inside functions too.
"""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from negmeta_utils.storage.paths import ROOT

PACKAGE = "negmeta_utils"
WITHOUT_TORCH = ("evidence", "plots")


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path for path in (ROOT / PACKAGE).rglob("*.py")}


def imported(path):
    """Names of the modules that a file imports, whoever's they are."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= submodules & set(SOURCES) or {node.module}
    return names


IMPORTS = {name: imported(path) for name, path in SOURCES.items()}
OWN = {name: names & set(SOURCES) - {PACKAGE} for name, names in IMPORTS.items()}


def folder(module):
    """The folder of a module; the module's own name where it stands at the top."""
    return module.removeprefix(f"{PACKAGE}.").split(".")[0]


def of_folder(name):
    modules = [module for module in SOURCES if folder(module) == name]
    assert modules, name
    return modules


def test_no_module_imports_itself_by_way_of_others():
    assert len(list(TopologicalSorter(OWN).static_order())) >= len(SOURCES) - 1


def test_a_circle_would_be_found():
    with pytest.raises(ValueError, match="nodes are in a cycle"):
        list(TopologicalSorter({**OWN, f"{PACKAGE}.model": {f"{PACKAGE}.training"}}).static_order())


def test_no_folder_imports_itself_by_way_of_others():
    """Stricter: of modules alone, two of one folder may lie on both sides of another folder."""
    of_folders = {}
    for module, others in OWN.items():
        of_folders.setdefault(folder(module), set()).update(
            {folder(o) for o in others} - {folder(module)}
        )
    order = list(TopologicalSorter(of_folders).static_order())
    assert order.index("data") < order.index("runs") < order.index("training")


def test_evidence_knows_nothing_but_itself():
    for module in of_folder("evidence"):
        assert {folder(other) for other in OWN[module]} <= {"evidence"}, module


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_torch_is_not_imported_in(name):
    for module in of_folder(name):
        assert not [n for n in IMPORTS[module] if n.split(".")[0] == "torch"], module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["execute", "status"])
def test_what_executes_and_watches_notebooks_loads_no_torch(name):
    """Each of a study's workers would take seconds and 500 MB for it."""
    code = (
        f"import sys, negmeta_utils.studies.{name}; print({{'torch', 'pandas'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["studies", "explore", "questions"])
def test_a_folder_that_only_notebooks_and_commands_use_is_not_imported_from_below(name):
    allowed = {name, "cli", "__main__", PACKAGE}  # its public names
    for module, others in OWN.items():
        if folder(module) not in allowed:
            assert name not in {folder(other) for other in others}, module


@pytest.mark.slow
def test_no_file_of_the_tests_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith("test_")], path
