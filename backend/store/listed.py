"""What was listed a moment ago is asked for next, picture by picture: the finds of a whole list are looked up together, once.

To find one picture among ten million takes as long as to find twenty-four (40 ms): a gallery that asked for each by itself took two
seconds. Kept until something changes, for the last lists only. Knows nothing of how anything is found.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backend.store.database import Database

LISTS = 16                     # of visitors who look at the same time, two each


@dataclass
class _List:
    plant: str
    revision: int
    image_ids: dict[int, str]                               # by inspection_id
    found: dict[Any, pd.DataFrame] | None = None            # detections by inspection_id, once somebody asked for one
    none: pd.DataFrame | None = None                        # where there are none


def remember(db: Database, rows: pd.DataFrame, plant: str, revision: int) -> None:
    """Rows of facts that are shown now, of this plant; read when the database had this revision."""
    if len(rows):
        lists: deque[_List] = db.memory.setdefault("listed", deque(maxlen=LISTS))
        lists.append(_List(plant, revision, dict(zip(rows["inspection_id"].tolist(), rows["image_id"].tolist(), strict=True))))


def image_id(db: Database, inspection_id: int) -> str | None:
    """Of a listed picture; it never changes."""
    return next((one.image_ids[inspection_id] for one in _lists(db) if inspection_id in one.image_ids), None)


def detections(db: Database, inspection_id: int, find: Callable[[list[int]], pd.DataFrame]) -> pd.DataFrame | None:
    """What `find` finds for a listed picture, asked for all of its list at once; None where it is on none."""
    own = next((one for one in _lists(db) if inspection_id in one.image_ids and one.revision >= db.known(one.plant)), None)
    if own is None:
        return None
    if own.found is None:
        every = find(list(own.image_ids))
        own.found = {i: every.iloc[at].reset_index(drop=True) for i, at in every.groupby("inspection_id").indices.items()}
        own.none = every.head(0)
    return own.found.get(inspection_id, own.none)


def _lists(db: Database) -> list[_List]:
    """The newest first. A copy: other sessions list meanwhile."""
    return list(db.memory.get("listed", ()))[::-1]
