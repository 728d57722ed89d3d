"""Is a line's rate up, and by how much more than chance? The state of a line in a word and a sentence, from counts alone.

Recent against usual, in units, for the line and for each kind of defect:

    act    the rate of the line, or of one kind of defect, is more than 3 standard errors above usual and at least 1.5 times
           it, with 50 units or more
    look   the rate of the line is more than 2 standard errors above usual, with 3 defective units or more; or something is
           missing; or there are fewer than 50 units to compare with
    normal otherwise

The standard error is that of a difference between two shares, both at the usual rate. Of lines in one state the one with the
largest `excess` comes first. Knows nothing of the database, of shifts or of the clock: what is recent, usual and missing is told.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

ACT_SE, ACT_TIMES, ACT_UNITS, LOOK_SE, LOOK_DEFECTIVE = 3.0, 1.5, 50, 2.0, 3
STATES = ("act", "look", "normal", "none")         # the worst first; none: nothing came


@dataclass(frozen=True)
class Rise:
    """Recent against usual; class_name '' is the line's own rate."""

    class_name: str
    units: int
    defective: int
    usual_units: int
    usual_defective: int

    @property
    def rate(self) -> float:
        return self.defective / self.units if self.units else 0.0

    @property
    def usual(self) -> float:
        return self.usual_defective / self.usual_units if self.usual_units else 0.0

    @property
    def errors(self) -> float:
        """Standard errors above usual; a usual rate of 0 counts as one in all units seen, or anything would be infinitely far."""
        share = max(self.usual, 1 / max(self.usual_units, 1))
        return (self.rate - self.usual) / float(np.sqrt(share * (1 - min(share, 0.999)) * (1 / self.units + 1 / self.usual_units)))

    @property
    def excess(self) -> float:
        """How far above usual, in standard deviations, by the signed root of the likelihood ratio; 0 where it is not above.

        To order rises by: `errors` makes much of what is rare. Where 0.3 are usual, 2 lie 3.1 standard errors above, and so do 20 where 10
        are usual, though chance brings the two ten times as often; here that is 2.0 and 2.8.
        """
        n, n0 = self.units, self.usual_units
        if self.rate <= self.usual:
            return 0.0
        share = (self.defective + self.usual_defective) / (n + n0)
        cells = ((self.defective, n * share), (n - self.defective, n * (1 - share)),
                 (self.usual_defective, n0 * share), (n0 - self.usual_defective, n0 * (1 - share)))
        return float(np.sqrt(max(0.0, 2 * sum(seen * np.log(seen / expected) for seen, expected in cells if seen > 0))))

    @property
    def comparable(self) -> bool:
        return self.units > 0 and self.usual_units >= ACT_UNITS

    @property
    def act(self) -> bool:
        return self.comparable and self.units >= ACT_UNITS and self.errors > ACT_SE and self.rate >= ACT_TIMES * self.usual

    @property
    def look(self) -> bool:
        return self.comparable and self.defective >= LOOK_DEFECTIVE and self.errors > LOOK_SE

    def sentence(self) -> str:
        name = self.class_name.replace("_", " ").strip() or "defects"
        are = "are" if name.endswith("s") and not name.endswith("ss") else "is"
        return f"{name[:1].upper()}{name[1:]} {are} up: {percent(self.rate)} against usually {percent(self.usual)}"


def judge(whole: Rise, kinds: list[Rise], missing: str) -> dict[str, Any]:
    """State, reason and figures of a line. The kind of defect that drives a rise speaks for it where it explains most of it."""
    acting = [r for r in kinds if r.act]
    risen = [*acting, *([whole] if whole.act or whole.look else [])]
    driving = max(acting or kinds, key=lambda r: r.rate - r.usual, default=whole)
    explains = bool(acting) or driving.rate - driving.usual > (whole.rate - whole.usual) / 2
    reasons = [(driving if explains else whole).sentence()] if risen else []
    state = "act" if whole.act or acting else "look" if risen or missing or not whole.comparable else "normal"   # unjudged is not normal
    reason = ". ".join([*reasons, missing] if missing else reasons) or _calm(whole)
    return dict(state=state, reason=reason, inspected=whole.units, defective=whole.defective, rate=whole.rate,
                usual_rate=whole.usual if whole.usual_units else None, excess=max((r.excess for r in risen), default=0.0),
                class_name=driving.class_name if risen and explains else "")


def worst_first(rows: list[dict[str, Any]], name: str = "line") -> list[dict[str, Any]]:
    """Judged rows by state, in one state by how much is behind it, then by `name`."""
    return sorted(rows, key=lambda r: (STATES.index(r["state"]), -r["excess"], r[name]))


def _calm(whole: Rise) -> str:
    if not whole.comparable:
        return f"Too little to compare with so far: {percent(whole.rate)} of {whole.units:,} inspected"
    return f"As usual: {percent(whole.rate)} against usually {percent(whole.usual)}"


def percent(share: float) -> str:
    """5.8 %; two places below 1 %, where one would hide what matters."""
    return f"{share * 100:.2f} %" if 0 < share < 0.01 else f"{share * 100:.1f} %"
