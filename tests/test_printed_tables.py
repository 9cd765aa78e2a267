"""What the notebooks' shipped pages show."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from checking_notebooks import NOTEBOOKS

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def outputs(path):
    for cell in nbformat.read(path, 4).cells:
        yield from cell.get("outputs", ())


def tables(path):
    for output in outputs(path):
        page = BeautifulSoup(output.get("data", {}).get("text/html", ""), "html.parser")
        for table in page("table"):
            yield [[cell.text for cell in row(["th", "td"])] for row in table("tr")]


@by_name
def test_tables_are_in_words_with_one_minus_and_no_column_of_dashes(path):
    for head, *rows in tables(path):
        assert not [name for name in head if "_" in name]
        cells = [text for row in rows for text in row]
        assert not [text for text in cells if re.search(r"(?<![\w–])-\d", text)]
        assert not [text for text in cells if re.search(r"\de-\d", text)]
        if len({len(row) for row in [head, *rows]}) == 1:  # neither of them merged
            columns = zip(*rows, strict=True)
            assert not [column for column in columns if set(column) <= {"–", ""}]


def test_seeds_needed_have_one_row_for_each_method_and_number_of_episodes():
    (rows,) = (
        rows
        for head, *rows in tables(next(path for path in NOTEBOOKS if path.stem.startswith("04")))
        if head == ["method", "episodes", "seeds", "low", "high"]
    )
    assert len(rows) == len({tuple(row[:2]) for row in rows}) == 8


@by_name
def test_no_line_of_progress_is_left(path):
    for output in outputs(path):
        if output.output_type == "display_data":
            assert set(output.data) != {"text/plain"}
