"""Numbers and dates as a manager reads them. Plain functions, no widgets; names are escaped in `words`."""

import math
from datetime import UTC, date, datetime

import pandas as pd


def count(n: float) -> str:
    """2904 -> '2,904'."""
    return f"{int(n):,}"


def counted(n: float, one: str) -> str:
    """'1 seed', '3 seeds'."""
    return f"{count(n)} {one}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """As many digits as a person can use, towards either end: 0.08 %, 0.8 %, 4.3 %, 12 %, 97.3 %, 100 %."""
    if not math.isfinite(share):
        return "–"
    value = 100 * share
    edge = min(value, 100 - value)
    digits = 0 if edge >= 9.95 or edge <= 0 else 1 if edge >= 0.0995 else 2 if edge >= 0.00995 else 3
    return f"{value:.{digits}f} %"


def three(n: float) -> str:
    """Three digits that count: 49,587 is said as '49,600'."""
    return f"{float(f'{n:.3g}'):,.0f}"


def share(part: float, whole: float) -> str:
    """'0.8 % (23 of 2,904)': a share never goes without its n."""
    return f"{percent(part / whole)} ({count(part)} of {count(whole)})" if whole else "nothing inspected"


def ago(when: datetime | None) -> str:
    """'3 min ago', '2 days ago'; '' for no time."""
    if when is None or pd.isna(when):
        return ""
    seconds = (datetime.now(UTC) - moment(when)).total_seconds()
    for unit, size in (("day", 86_400), ("h", 3_600), ("min", 60)):
        if (n := int(seconds // size)) >= 1:
            return f"{n} {unit}{'s' if unit == 'day' and n > 1 else ''} ago"
    return "just now"


def moment(when: datetime) -> datetime:
    """The same instant with a zone; a naive time is UTC, as the store keeps it."""
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def day(when: date | datetime) -> str:
    """'Sat 21 Nov 2026'."""
    return f"{when:%a} {when.day} {when:%b %Y}"


def html(words: str) -> str:
    """Text from outside made safe for Plotly's labels, which read a little HTML, and for its templates, which fill in what stands
    behind a "%"."""
    return " ".join(str(words).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "&#37;{")
