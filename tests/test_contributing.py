"""The steps of CONTRIBUTING.md, done as they are written."""

import re

import nbformat
import numpy as np
import pytest
import yaml
from clones import copy_clone, run
from PIL import Image

import negmeta_utils
from negmeta_utils.storage import paths

TEXT = (paths.ROOT / "CONTRIBUTING.md").read_text()


def steps_of(title):
    """Kind, content and words before it of every block of code that adds a thing."""
    section = re.search(rf"^\*\*{title}\*\*(.*?)(?=^\*\*|\Z)", TEXT, re.M | re.S)[1]
    blocks = re.findall(r"((?:(?!```).)*?)^```(\w+)\n(.*?)^```$", section, re.M | re.S)
    return [(kind, code, words) for words, kind, code in blocks]


@pytest.fixture
def clone(tmp_path):
    return copy_clone(tmp_path)


def follow(title, clone, **replaced):
    """Do every step that adds a thing: lines into dictionaries, files written, commands run."""
    for kind, code, words in steps_of(title):
        for old, new in replaced.items():
            code = code.replace(old, new)
        if kind == "bash":
            result = run(f"set -e\n{code}", clone)
            assert result.returncode == 0, result.stderr
        elif kind == "python":
            name, file = re.search(r"add to `(\w+)` in `([^`]+)`", words, re.I).groups()
            text = (clone / file).read_text()
            assert text.count(f"\n{name} = {{\n") == 1
            (clone / file).write_text(text.replace(f"\n{name} = {{\n", f"\n{name} = {{\n{code}"))
        else:
            (clone / re.search(r"Write its study `([^`]+)`", words)[1]).write_text(code)


def printed(path):
    cells = nbformat.read(path, 4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


def test_a_data_set(clone):
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in range(6):
            folder = clone / "pictures" / split / f"{split}-{label}"
            folder.mkdir(parents=True)
            for number in range(12):
                pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    follow("A data set", clone, PATH=str(clone / "pictures"))
    assert "complete after 3 meta-updates" in printed(clone / "out.ipynb")
    assert "colours: 6 classes to train on" in printed(clone / "out.ipynb")


def test_a_method(clone):
    follow("A method", clone)
    said = printed(clone / "out.ipynb")
    assert "complete after 3 meta-updates" in said
    assert re.search(r"method +fo-meta-sgd", said)
    figures = (clone / "negmeta_utils" / "plots" / "style.py").read_text()
    assert figures.count('"fo-meta-sgd": ') == 2, "a label and a colour"


def test_a_notebook(clone):
    follow("A notebook", clone)
    page = (clone / "runs" / "question" / "report.html").read_text()
    assert "Figure 6" in page


def test_the_citation_is_of_the_paper_and_of_this_version():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    project = (paths.ROOT / "pyproject.toml").read_text()
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == negmeta_utils.__version__
    assert f'license = "{citation["license"]}"' in project
    paper = citation["preferred-citation"]
    assert paper["title"] == "Negative Inner-Loop Learning Rates Learn Universal Features"
    assert paper["authors"] == [{"family-names": "Starshak", "given-names": "Tom"}]
    assert (paper["type"], paper["year"]) == ("article", 2022)
    assert paper["url"].split("/")[-1] == paper["identifiers"][0]["value"].removeprefix("arXiv:")
