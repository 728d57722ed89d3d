"""Parts that have a number of their own. Only of these is "defective parts per million" a word: where nobody gives numbers, each picture
passes for a part. Counted from the roll-ups (see tally), as `queries.totals` are.
"""

from backend.records import Filters
from backend.store import counting
from backend.store.database import Database

KNOWN = 0.99                   # share of pictures that must carry a number: one camera that failed to read a code does not hide the figure
# What has no number is one picture and one unit.
_NAMED = """
SELECT coalesce(sum(named), 0)::BIGINT AS units, coalesce(sum(bad), 0)::BIGINT AS defective,
       coalesce(sum(units - named), 0)::BIGINT AS without, coalesce(sum(pictures), 0)::BIGINT AS pictures FROM (
    SELECT if({view}, units, 0) AS units, if({view}, named, 0) AS named, {own} AS bad, pictures FROM tallies f WHERE {where}
    UNION ALL
    SELECT 0, 0, named, 0 FROM kind_tallies f WHERE {where} AND {view} AND class_name = $class_name AND action = 'reject'
    UNION ALL
    SELECT 1, 1, (sum({spread}) > 0)::INTEGER, 0 FROM spread f WHERE {where} AND f.named GROUP BY f.unit)
"""


def named(db: Database, filters: Filters) -> tuple[int, int]:
    """(defective, units) of those that have a number; (0, 0) where too many pictures of the selection have none. Not of a run: roll-ups
    know none."""
    assert not filters.run_id, "asked of plants"
    where, values = counting.where(filters)
    view = counting.view(filters)
    own, spread = ("0", counting.SPREAD_KIND) if filters.class_name else (f"if({view}, named_defective, 0)", "f.defects")
    with db.cursor() as cursor:
        row = cursor.execute(_NAMED.format(own=own, where=where, view=view, spread=spread), values).dicts()[0]
    return (row["defective"], row["units"]) if row["without"] <= (1 - KNOWN) * row["pictures"] else (0, 0)
