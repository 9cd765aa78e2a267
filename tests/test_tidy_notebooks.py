"""Notebooks as the repository keeps them, and the pre-commit hook that makes them so."""

import os
import re
import shutil
import subprocess
import sys
from types import ModuleType
from unittest.mock import Mock

import nbformat
import pytest
import tidy_notebooks
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from negmeta_utils.storage import paths
from negmeta_utils.studies import study_file

NOTEBOOKS = sorted(study_file.NOTEBOOKS.glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


@by_name
def test_a_notebook_is_as_the_repository_keeps_it(path):
    assert path.read_text(encoding="utf-8") == tidy_notebooks.tidied(path), (
        "run `python tools/tidy_notebooks.py`"
    )


@pytest.mark.parametrize(
    "source, hidden",
    [
        ("import torch\nfrom math import (\n    pi,\n)", True),
        ("import torch\ntorch.ones(1)", False),
        ("%pip install x\nimport x", False),
        ("# nothing", False),
    ],
)
def test_cells_of_imports_alone_are_hidden(source, hidden):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Title"), nbformat.v4.new_code_cell(source)]
    )
    tidy_notebooks.tidy(notebook, "n.ipynb", None)
    in_jupyter, in_colab = {"source_hidden": True}, "form"
    expected = {"jupyter": in_jupyter, "cellView": in_colab} if hidden else {}
    assert notebook.cells[1].metadata == expected


@by_name
def test_any_editor_opens_the_notebook(path):
    """VS Code and JupyterLab want a valid notebook, its kernel's name, and an id for every cell."""
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.metadata.language_info.name == "python"


@by_name
def test_without_an_address_a_notebook_has_neither_badge_nor_install_cell(path):
    if tidy_notebooks.repository() is not None:
        pytest.skip("this clone has an address (tidy_notebooks.py --repository)")
    text = path.read_text(encoding="utf-8")
    assert "colab" not in text and "OWNER" not in text


def test_one_command_gives_every_notebook_badge_and_install_cell(tmp_path, monkeypatch):
    for name in ("CITATION.cff", "notebooks"):
        (shutil.copytree if name == "notebooks" else shutil.copy)(
            paths.ROOT / name, tmp_path / name
        )
    monkeypatch.setattr(tidy_notebooks, "CITATION", tmp_path / "CITATION.cff")
    monkeypatch.setattr(tidy_notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    assert tidy_notebooks.main(["--repository", "someone/theirs"]) == 1
    cited = yaml.safe_load((tmp_path / "CITATION.cff").read_text())
    assert cited["repository-code"] == "https://github.com/someone/theirs"
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        first, install = nbformat.read(path, 4).cells[:2]
        assert f"github/someone/theirs/blob/main/notebooks/{path.name})" in first.source
        assert "https://github.com/someone/theirs " in install.source
    assert tidy_notebooks.main(["--repository", "someone/theirs"]) == 0
    with pytest.raises(ValueError, match="--repository nonsense: write OWNER/NAME"):
        tidy_notebooks.main(["--repository", "nonsense"])


@pytest.mark.parametrize("in_colab", [True, False])
def test_the_install_cell_acts_in_colab_alone(in_colab, monkeypatch):
    if in_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    shell = Mock()
    source = TransformerManager().transform_cell(tidy_notebooks.INSTALL)
    exec(source, {"get_ipython": lambda: shell})
    called = [call[0] for call in shell.method_calls]
    assert called == (["system", "run_line_magic"] if in_colab else [])


def noisy_notebook():
    """A notebook whose every output differs from one execution to the next."""
    code = [
        "import ipywidgets, pandas as pd, sys, time\nimport matplotlib.pyplot as plt",
        "pd.DataFrame({'a': [1]}).style",
        "pd.DataFrame({'a': [2]}).style",
        "object()",
        "ipywidgets.IntSlider()",
        "for i in range(3):\n    print(i)\n    sys.stdout.flush()\n    time.sleep(0.2)",
        "plt.plot([1, 2]);",
        "# NBVAL_CHECK_OUTPUT\nprint('kept')",
    ]
    cells = [nbformat.v4.new_code_cell(text, id=f"c-{n}") for n, text in enumerate(code)]
    title = nbformat.v4.new_markdown_cell("# Title\n\nText.", id="title")
    kernel = {"name": "other", "display_name": "another machine's"}
    return nbformat.v4.new_notebook(cells=[title, *cells], metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with the hook, and a notebook as executed and committed."""
    folder = tmp_path_factory.mktemp("repository")
    for name in (".pre-commit-config.yaml", "pyproject.toml", "CITATION.cff"):
        shutil.copy(paths.ROOT / name, folder)
    shutil.copytree(
        paths.ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".gitignore").write_text(".venv\n__pycache__\n.ruff_cache\n")
    (folder / "notebooks").mkdir()
    path = folder / "notebooks" / "noisy.ipynb"
    execute(noisy_notebook(), path)
    git(folder, "init", "-q")
    hook(folder)
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one", "--no-verify")
    return folder


def execute(notebook, path):
    settings = {"kernel_name": "python3", "startup_timeout": 600}  # on a busy machine
    NotebookClient(notebook, record_timing=True, **settings).execute()
    nbformat.write(notebook, path)


def git(folder, *words):
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def hook(folder):
    git(folder, "add", "-A")
    return subprocess.run(
        [".venv/bin/pre-commit", "run", "--all-files"], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PRE_COMMIT_HOME": f"{folder}-cache"}, check=False,
    )  # fmt: skip


def test_executing_again_leaves_no_difference_after_the_hook(repository):
    path = repository / "notebooks" / "noisy.ipynb"
    committed = nbformat.read(path, 4)
    notebook = nbformat.read(path, 4)
    execute(notebook, path)
    changed = [line for line in git(repository, "diff").splitlines() if line.startswith("+")]
    assert len(changed) > 20, "nothing to take off"
    result = hook(repository)
    assert result.returncode == 1, result.stdout + result.stderr
    assert git(repository, "diff", "HEAD") == ""
    assert hook(repository).returncode == 0, "the second time there is nothing to do"
    assert committed.cells[-1].outputs[0].text == "kept\n"
    kinds = [set(output.data) for output in committed.cells[7].outputs]
    assert kinds == [{"image/png", "text/plain"}], "figures stay for those who only look"


def test_the_hook_names_each_styled_table_differently(repository):
    notebook = nbformat.read(repository / "notebooks" / "noisy.ipynb", 4)
    tables = [cell.outputs[0].data["text/html"] for cell in notebook.cells[2:4]]
    assert 'id="T_00000"' in tables[0]
    assert 'id="T_00001"' in tables[1]


def test_the_hook_refuses_what_ruff_does(repository):
    bad = repository / "bad.py"
    bad.write_text("import os\nprint(undefined)\n")
    result = hook(repository)
    bad.unlink()
    assert result.returncode == 1
    assert "F821" in result.stdout


def test_a_figure_of_a_text_cell_goes_where_the_notebook_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tidy_notebooks, "FIGURES", tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "answer.png").write_bytes(b"pixels")
    cell = nbformat.v4.new_markdown_cell("# A\n\n![What it shows](attachment:study/answer.png)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata = {"language_info": {"name": "python"}}
    tidy_notebooks.tidy(notebook, "a.ipynb", None)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert 'src="data:image/png;base64,cGl4ZWxz"' in page and 'alt="What it shows"' in page


@by_name
def test_no_notebook_links_to_an_image_beside_it(path):
    for cell in nbformat.read(path, 4).cells:
        assert not re.search(r"!\[[^]]*\]\((?!attachment:)", cell.source)
