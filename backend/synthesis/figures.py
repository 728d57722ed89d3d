"""A class's figures: distance with what real pictures get beside it, copies, variety. For `quality` and `search` alike.

Stands between what was seen of pictures and a row of a result. Figures of distance are times 1,000. Knows nothing of files or networks.

    kid, low, high      distance of the made from the reference, and its interval
    floor               that of the class's other real pictures; where these are few, of one half of the reference from the other
    chance              two samples of real pictures, of these sizes, stay below it 95 times of 100
    copied              share of made pictures nearer to one learned from than 99 % of real ones are
    copied_chance       what that share is where none is a copy: about 1 / (real ones + 1) where these are few, 0.01 where many
    copying             whether it is more than 0.05 and more than chance makes 95 times of 100
    of_parent           share whose nearest is the picture it was made from
    diversity           mean distance between made pictures, of that between real ones
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.data.snapshot import Picture
from backend.synthesis import lots, measures
from backend.synthesis.looks import Looks
from backend.synthesis.lots import Lot
from backend.synthesis.measures import Estimate, Vectors

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass
class Measured:
    """A class: its row of the result, its distance, and the nearest real picture of each made one."""

    row: dict[str, Any]
    kid: Estimate | None
    nearest: list[dict[str, Any]] = field(default_factory=list)
    copies: measures.Counted | None = None


class Seen:
    """What was seen of pictures, by name; of some of them in all turns."""

    def __init__(self, found: Looks, names: Sequence[str], turned: Vectors | None = None, of_turned: Sequence[str] = ()) -> None:
        self.found, self.at = found, {name: i for i, name in enumerate(names)}
        self._turned, self._at_turned = turned, {name: i for i, name in enumerate(of_turned)}

    def of(self, names: Sequence[str]) -> Looks:
        return self.found[[self.at[name] for name in names]]

    def real(self, pictures: Sequence[Picture]) -> Looks:
        return self.of([p.image_id for p in pictures])

    def turned(self, pictures: Sequence[Picture]) -> Vectors:
        """Layouts (n, turns, D)."""
        assert self._turned is not None, "nothing was turned"
        return np.asarray(self._turned[[self._at_turned[p.image_id] for p in pictures]])


def together(pictures: Iterable[Picture]) -> list[Picture]:
    """Each once."""
    found = {p.image_id: p for p in pictures}
    return [found[i] for i in sorted(found)]


def measured(lot: Lot, made: Looks, seen: Seen, seed: int) -> Measured:
    """All figures of a class; None where one cannot be had, and `why` where it is the distance."""
    kid = distance(lot, made, seen)
    floor = floor_of(lot, seen, seed) if kid else None
    chance = measures.chance(seen.real(lot.real).kind, len(lot.items), len(lot.reference), seed) if kid else None
    near = copies(made, seen, lot.known, lot.real)
    nearest = _nearest(lot, near) if near else []
    row = dict(class_name=lot.class_name, made=len(lot.items), stems=len(set(lot.groups)), reference=len(lot.reference), real=len(lot.real),
               known=len(lot.known), why=lot.why, **thousandths(kid), **thousandths(floor, "floor", "floor_low", "floor_high"),
               chance=None if chance is None else round(1000 * chance, 2), diversity=diversity(made, seen.real(lot.real)), **_copied(near),
               of_parent=round(float(np.mean([n["parent"] for n in nearest])), 4) if nearest else None)
    return Measured(row, kid, nearest, near.counted if near else None)


def distance(lot: Lot, made: Looks, seen: Seen) -> Estimate | None:
    if lot.why:
        return None
    return measures.kid(made.kind, seen.real(lot.reference).kind, lot.groups, [lots.group(p) for p in lot.reference])


def floor_of(lot: Lot, seen: Seen, seed: int) -> Estimate | None:
    """What real pictures get in place of made ones; None where they are too few, or all near-duplicates."""
    reference, others = lot.reference, lot.others
    if len(others) < lots.FEWEST:
        order = np.random.default_rng(seed).permutation(len(reference))
        half = len(order) // 2
        reference, others = [lot.reference[i] for i in order[:half]], [lot.reference[i] for i in order[half:]]
    groups = [[lots.group(p) for p in some] for some in (others, reference)]
    if min(len(others), len(reference)) < lots.FEWEST or min(len(set(g)) for g in groups) < 2:
        return None
    return measures.kid(seen.real(others).kind, seen.real(reference).kind, *groups)


def thousandths(estimate: Estimate | None, value: str = "kid", low: str = "low", high: str = "high") -> dict[str, float | None]:
    """An estimate as results have it."""
    if estimate is None:
        return {value: None, low: None, high: None}
    return {k: round(1000 * v, 2) for k, v in ((value, estimate.value), (low, estimate.low), (high, estimate.high))}


def diversity(made: Looks, real: Looks) -> float | None:
    if min(len(made), len(real)) < 2 or not (usual := measures.spread(real.kind)):
        return None
    return round(measures.spread(made.kind) / usual, 4)


def copies(made: Looks, seen: Seen, known: list[Picture], real: list[Picture]) -> measures.Copies | None:
    """None where nothing is known that could be copied, or too few real pictures to say what is near. Real: the class's and the known."""
    usual = together(real + known)
    if not known or not len(made) or len(usual) < lots.FEWEST:
        return None
    found = measures.copies(made.layout, seen.turned(known), seen.real(usual).layout,
                            [lots.group(p) for p in known], [lots.group(p) for p in usual])
    return found if len(found.real) >= lots.FEWEST else None


def _nearest(lot: Lot, near: measures.Copies) -> list[dict[str, Any]]:
    """`ratio` is 1 at the limit; below, it counts as a copy."""
    return [dict(class_name=lot.class_name, made=item["file"], real=(real := lot.known[int(w)].image_id), distance=round(float(d), 4),
                 ratio=round(float(d) / max(near.limit, 1e-6), 3), parent=real in lots.stems(item))
            for item, d, w in zip(lot.items, near.distance, near.which, strict=True)]


def _copied(near: measures.Copies | None) -> dict[str, Any]:
    if near is None:
        return dict(**counted([]), beside=None, limit=None, distances=None, real_distances=None)
    return dict(**counted([near.counted]), beside=len(near.real), limit=round(near.limit, 4), distances=_quantiles(near.distance),
                real_distances=_quantiles(near.real))


def counted(found: Sequence[measures.Counted]) -> dict[str, Any]:
    """Copies as results have them, of all pictures of some classes; of none, None."""
    made = sum(c.made for c in found)
    if not made:
        return dict(copied=None, copied_chance=None, copying=None)
    return dict(copied=round(sum(c.copied for c in found) / made, 4), copied_chance=round(sum(c.chance * c.made for c in found) / made, 4),
                copying=measures.copying(found))


def _quantiles(distances: Vectors) -> list[float]:
    return [round(float(q), 4) for q in np.quantile(distances, QUANTILES)]


def overall(found: Sequence[Measured]) -> dict[str, Any]:
    """Mean distance and variety of the classes that have one; share of copies, and of labels found, of all pictures and labels."""
    kids, rows = [m.kid for m in found if m.kid], [m.row for m in found]
    varied = [r["diversity"] for r in rows if r["diversity"] is not None]
    return dict(**thousandths(measures.mean(kids) if kids else None), measured=len(kids),
                **counted([m.copies for m in found if m.copies]), of_parent=_weighed([(r["of_parent"], r["made"]) for r in rows]),
                diversity=round(float(np.mean(varied)), 4) if varied else None,
                found=_weighed([(r.get("found"), r.get("labels", 0)) for r in rows]))


def _weighed(shares: list[tuple[float | None, int]]) -> float | None:
    known = [(share, n) for share, n in shares if share is not None]
    total = sum(n for _, n in known)
    return round(sum(share * n for share, n in known) / total, 4) if total else None
