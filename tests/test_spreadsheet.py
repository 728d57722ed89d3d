"""CSV that leaves the house: no cell of it is computed by whoever opens it, and numbers stay numbers."""

import csv
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.jobs import spreadsheet

ROOT = Path(__file__).resolve().parents[1]


def read(data: bytes) -> list[list[str]]:
    return list(csv.reader(StringIO(data.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "－", "-", "+49 30"])
def test_a_formula_becomes_text_in_cells_and_column_names(text: str) -> None:
    names, row = read(spreadsheet.csv(pd.DataFrame({text: [text], "kind": pd.Series([text], dtype="category")})))
    assert row == [f"'{text}"] * 2 and names == [f"'{text}", "kind"]


def test_numbers_dates_and_plain_text_stay_as_they_are() -> None:
    table = pd.DataFrame({"n": [-1.5, 2.0], "whole": pd.Series([-3, None], dtype="Int64"), "mixed": [-3.5, "-3.5"],
                          "when": pd.to_datetime(["2026-11-29 06:00", None]), "name": ["a=b", None], "yes": [True, False]})
    assert read(spreadsheet.csv(table)) == [["n", "whole", "mixed", "when", "name", "yes"],
                                           ["-1.5", "-3", "-3.5", "2026-11-29 06:00:00", "a=b", "True"],
                                           ["2.0", "", "'-3.5", "", "", "False"]]


@given(st.text(max_size=40))
def test_no_text_begins_like_a_formula_and_none_is_lost(text: str) -> None:
    cell = str(spreadsheet.cell(text))
    assert cell in (text, f"'{text}")
    assert not cell.startswith(spreadsheet.STARTS)


def test_two_columns_of_one_name_both_come() -> None:
    assert read(spreadsheet.csv(pd.DataFrame([["=a", "b"]], columns=["x", "x"]))) == [["x", "x"], ["'=a", "b"]]


def test_all_csv_is_written_in_one_place() -> None:
    writers = {p.relative_to(ROOT).as_posix() for folder in ("backend", "pages") for p in (ROOT / folder).rglob("*.py")
               if ".to_csv(" in p.read_text() or "csv.writer" in p.read_text() or "csv.DictWriter" in p.read_text()}
    assert writers == {"backend/jobs/spreadsheet.py"}
