"""What a plant has set itself: a target for a line, a product or a kind of defect, and whether a shift met it.

A shift is judged by its own count of units. It is `missed` where chance does not explain that the rate lies on the wrong side (its 95 %
interval does not reach the target), `near` where chance may, `met` otherwise. Knows nothing of where counts come from.
"""

import hashlib
import json
from dataclasses import dataclass, field

from backend.config import Config
from backend.errors import ConfigError
from backend.quality import rates
from backend.quality.rates import Rate

MEASURES = {"defect rate": "Defect rate at most", "good first time": "Good first time at least"}
STATES = ("missed", "near", "met", "few")


@dataclass(frozen=True)
class Target(Config):
    """`to_json` is the config of an inline run `target`; the newest of an owner holds, and one that is `removed` ends it."""

    line: str = ""                     # '': the whole plant
    product: str = ""
    class_name: str = ""               # a kind of defect; '': any
    measure: str = field(default="defect rate", metadata={"choices": tuple(MEASURES)})
    value: float = 0.02                # a share, 0 to 1
    removed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.value <= 1:
            raise ConfigError("A target is a share between 0 % and 100 %.")

    @property
    def owner(self) -> tuple[str, str, str, str]:
        return self.line, self.product, self.class_name, self.measure

    @property
    def target_id(self) -> str:
        return short(self.owner)

    @property
    def words(self) -> str:
        """'Defect rate at most 2.0 %'."""
        return f"{MEASURES[self.measure]} {rates.percent(self.value)}"

    @property
    def where(self) -> str:
        """'Line 2, pits'; 'the whole plant'."""
        return ", ".join(filter(None, (self.line, self.product, self.class_name.replace("_", " ")))) or "the whole plant"


@dataclass(frozen=True)
class Outcome:
    """How a shift, or any other span, stands against a target. `rate` is of the target's measure."""

    state: str                         # missed | near | met | few
    rate: Rate
    words: str


def judge(target: Target, defective: int, units: int, least: int = 1) -> Outcome:
    """`least`: of fewer units nothing is said."""
    good = target.measure == "good first time"
    found = rates.good_first_time(units, defective) if good else rates.share(defective, units)
    if found.rate is None or units < least:
        return Outcome("few", found, f"{units:,} units are too few to judge")
    wrong = found.rate < target.value if good else found.rate > target.value
    surely = found.high < target.value if good else found.low > target.value
    state = "missed" if surely else "near" if wrong else "met"
    of = f"{rates.percent(found.rate)} ({found.k:,} of {found.n:,})"
    chance = "" if state != "near" else ". Chance alone may explain it"
    return Outcome(state, found, f"{target.measure[:1].upper()}{target.measure[1:]} {of}, target {'at least' if good else 'at most'} "
                                 f"{rates.percent(target.value)}{chance}")


def short(owner: object) -> str:
    """An owner as a short name, for links and causes."""
    return hashlib.sha256(json.dumps(owner).encode()).hexdigest()[:12]
