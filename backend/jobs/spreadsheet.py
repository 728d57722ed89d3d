"""Any table as CSV that a spreadsheet opens as what it is: the one place where CSV leaves the house.

A cell that begins like a formula would be computed by whoever opens the file, and may call programs or send cells away; names of files,
lines and kinds come from anybody. Such a cell gets a leading apostrophe, which spreadsheets do not show. Numbers stay
numbers. Knows nothing of what the table is about.
"""

from typing import Any

import pandas as pd

# What Excel, LibreOffice and Google Sheets begin a formula with; the wide forms are the same keys on East Asian keyboards. A tab or line
# end goes before: importers cut it off, and what stands behind it begins the cell.
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def cell(value: Any) -> Any:
    """Text that would be a formula, made text again; anything else as it is."""
    return f"'{value}" if isinstance(value, str) and value.startswith(STARTS) else value


def csv(rows: pd.DataFrame) -> bytes:
    """The table, its column names too, without its index; UTF-8 with a mark, or Excel reads umlauts wrongly."""
    safe = pd.DataFrame({n: _column(rows.iloc[:, n]) for n in range(rows.shape[1])}, index=rows.index)
    # Lines end as RFC 4180 has them: with "\n" alone the writer leaves a "\r" in a name unquoted, and what follows is a row of its own.
    return safe.to_csv(index=False, header=[str(cell(str(name))) for name in rows.columns], lineterminator="\r\n").encode("utf-8-sig")


def _column(values: "pd.Series[Any]") -> "pd.Series[Any]":
    kept = pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values)
    return values if kept else pd.Series([cell(v) for v in values], index=values.index, dtype=object)
