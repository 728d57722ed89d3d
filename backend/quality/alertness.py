"""What a person wants to be told of, and what makes an alarm one: its cause. One cause has one open alarm, however many points speak of it.

    target     a shift missed a target
    chart      a control chart says that chance explains it no longer
    rise       defects of the last shifts are far above what is usual
    silence    nothing arrives from a line that is planned to work
    software   stored pictures give other scores than they did       always on: whoever inspects has to be sound
    imaging    master parts look other than they did                 always on

A condition that is `on` opens an alarm; one that is merely not over yet keeps an open one open and opens none, so that an alarm does not
come and go with each point. Knows nothing of counts, clocks or messages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from backend.config import Config
from backend.errors import ConfigError
from backend.quality.targets import short

KINDS = {"silence": "Nothing arrives", "target": "A target is missed for a shift", "chart": "A control chart stands out",
         "rise": "A sudden rise"}
ALWAYS = {"software": "The software check fails", "imaging": "Master parts look different"}
OVER = {"silence": "Pictures arrive again.", "target": "The newest shift meets the target.", "chart": "Nothing but chance again.",
        "rise": "Back near what is usual.", "software": "The check passes again.", "imaging": "Steady again."}
GONE = "Nobody asks for this any more."                                # over for other reasons than that all is well again
STILL, NO_TARGET, NO_CHART = "The line is said to stand still.", "The target was taken away.", "The chart was put away."
OTHER_MODEL = "Another model judges since, so nobody knows whether it went on."
ANEW = "The parts are watched anew, so nobody knows whether it went on."


@dataclass(frozen=True)
class AlertRule(Config):
    """`to_json` is the config of an inline run `alert`; the newest of a kind and line holds, and one that is `removed` ends it."""

    kind: str = field(default="silence", metadata={"choices": tuple(KINDS)})
    line: str = ""                     # '': every line
    minutes: int = field(default=60, metadata={"low": 5, "high": 24 * 60})          # of silence
    planned: dict[str, list[int]] = field(default_factory=dict)  # shift -> weekdays, 1 is Monday; empty: as in the last four weeks
    least: int = field(default=50, metadata={"low": 1, "high": 1_000_000})          # units a shift needs for a target to be judged
    sure: bool = True                  # a target: only where chance does not explain it
    send: bool = True                  # to the plant's channels; else in the app alone
    removed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not isinstance(d, int) or not 1 <= d <= 7 for days in self.planned.values() for d in days):
            raise ConfigError("Weekdays are numbers from 1, Monday, to 7, Sunday.")

    @property
    def owner(self) -> tuple[str, str]:
        return self.kind, self.line

    @property
    def rule_id(self) -> str:
        return short(self.owner)

    def holds_for(self, line: str) -> bool:
        return self.line in ("", line)


@dataclass(frozen=True)
class Condition:
    """What was found just now. `since`: when it began, UTC. `page` and `query`: where a person sees its pictures."""

    kind: str
    cause: str
    text: str
    since: datetime
    on: bool = True
    line: str = ""
    product: str = ""
    class_name: str = ""
    page: str = "overview"
    query: tuple[tuple[str, str], ...] = ()
    send: bool = True
    key: str = ""                      # of a control chart: the point at which it spoke


def rule_for(rules: Iterable[AlertRule], kind: str, line: str) -> AlertRule | None:
    """The rule on one line goes before the one on every line."""
    fitting = [r for r in rules if r.kind == kind and r.holds_for(line)]
    return max(fitting, key=lambda r: bool(r.line), default=None)


def cause(kind: str, *owner: str) -> str:
    return "|".join((kind, *owner))


def to_open(found: Sequence[Condition], open_causes: Iterable[str]) -> list[Condition]:
    """Each cause once, and none that has an open alarm already."""
    there = set(open_causes)
    new: dict[str, Condition] = {}
    for condition in found:
        if condition.on and condition.cause not in there:
            new.setdefault(condition.cause, condition)
    return list(new.values())
