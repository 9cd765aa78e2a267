"""The package as a wheel, installed beside nothing of this clone, in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small_studies
from clones import copy_clone

from negmeta_utils.engine import library
from negmeta_utils.storage import atomic, paths


def run(*command, cwd):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    clone = copy_clone(tmp_path_factory.mktemp("clone"))
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", "dist", ".", cwd=clone,
    )  # fmt: skip
    (built,) = (clone / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def negmeta(wheel, tmp_path_factory):
    """The command of a new environment that has the wheel and borrows what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel,
        cwd=folder,
    )  # fmt: skip
    (packages,) = folder.glob("lib/*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    if not (folder / "share").exists():
        (folder / "share").symlink_to(Path(sys.prefix, "share"))  # nbconvert's templates
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin" / "negmeta"


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = set(file.namelist())
    listed = subprocess.run(
        ["git", "ls-files", "negmeta_utils", "notebooks"],
        cwd=paths.ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if name.startswith("notebooks/"):
            name = f"negmeta_utils/{name}"
        if (paths.ROOT / name).is_file():
            assert name in packed
    assert "negmeta_utils/figures/demo/features.parquet" in packed  # of notebook 4 as it stands
    assert "negmeta_utils/figures/decide/mechanism/interventions.parquet" in packed  # of 5
    assert not [name for name in packed if name.startswith(("tests/", "benchmarks/", "tools/"))]


def test_an_installed_package_runs_studies_and_lays_them_out(negmeta, tmp_path, monkeypatch):
    assert run(negmeta, "--version", cwd=tmp_path).startswith("negmeta ")
    once = dict.fromkeys(("n_updates", "val_episodes", "test_episodes"), 1)
    settings = {**once, "n_filters": 32, "device": "cpu"}
    steps = {
        "train": {"notebook": "01_train", "parameters": settings},
        "alpha": {"notebook": "02_alpha_distribution"},  # of networks that the wheel has
    }
    small_studies.write_study(tmp_path / "mine.yml", steps)
    if compiled := library.library():  # is known by the sources, which must be the same there
        code = Path(compiled._name).parent
        shutil.copytree(code, tmp_path / "cache" / code.name)
    monkeypatch.setenv("NEGMETA_CACHE", str(tmp_path / "cache"))  # to decode anew
    run(negmeta, "study", "mine.yml", cwd=tmp_path)
    manifest = atomic.read_json(tmp_path / "runs" / "mine" / "train" / "manifest.json")
    assert manifest["environment"]["kernels"] == ("c" if library.compiler_version() else "torch")
    run(negmeta, "report", "mine.yml", cwd=tmp_path)
    assert (tmp_path / "runs" / "mine" / "alpha" / "figure6.png").is_file()
    assert "Figure 6" in (tmp_path / "runs" / "mine" / "report.html").read_text()
    run(negmeta, "notebooks", ".", cwd=tmp_path)
    for path in (paths.ROOT / "notebooks").glob("*.ipynb"):
        assert (tmp_path / "notebooks" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "notebooks" / "studies" / "demo.yml").is_file()


def test_an_installed_package_finds_its_studies_by_name(negmeta, tmp_path):
    script = (
        "from pathlib import Path\n"
        "from negmeta_utils import config\n"
        "from negmeta_utils.studies import planning, study_file\n"
        "path = study_file.find_study('demo')\n"
        "for job in planning.plan(study_file.read_study(path, {}), Path('runs')):\n"
        "    print(job.notebook)\n"
        "print(config._git_commit())"
    )
    *notebooks, commit = run(negmeta.parent / "python", "-c", script, cwd=tmp_path).splitlines()
    assert len(notebooks) == 13
    for notebook in notebooks:
        assert Path(notebook).is_relative_to(negmeta.parents[1])
    assert commit == "None"
