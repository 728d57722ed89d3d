"""The random sample: drawn once, read by people who do not see what the model said, and what follows from their answers.

    draw_sample ask_more      whose random order and weights stand in the event `sample`
    read                      what a person said of one unit (event `read`)
    picture                   a unit, all its views in one picture
    sampled                   how far the newest sample is: what to read next, the true rate beside the apparent one, agreement
    note_ability              what the model in use was measured to do, elsewhere

One of 20 units comes again later, to whoever sits there then, and nothing says that it does; its first answer counts, both together tell
whether people agree. Nothing else enters: what was said of doubtful pictures stays in `review`. Knows nothing of pages.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

from backend.errors import ConfigError, NotFoundError
from backend.jobs import events, house
from backend.jobs.needs import acting, needs, reading, signed
from backend.quality import reference, truth
from backend.quality.rates import Rate
from backend.store import engineering, queries, sampling
from backend.store.database import Database

FIRST = 60                  # units of a new sample: half an hour, and enough to see what the rate is about
EVERY, GAP = 20, 10         # one read of so many comes again, when at least so many others were read since
# Share of defects that a stratum is expected to hold before anybody has read it: where the first reads are best spent.
GUESS = {(True, "clear"): 0.9, (True, "near the limit"): 0.5, (False, "near the limit"): 0.2, (False, "unlike good parts"): 0.2}
LEAST = 5                   # reads of each stratum, so that none is unknown
OTHER_MODEL = ("The model in use was measured elsewhere, but other models judged parts of this sample, so no true rate follows from that. "
               "Draw a new sample of days when it was in use.")
VERDICTS = ("defective", "good")


@dataclass(frozen=True)
class Read:
    """One answer of one person; `unit` is the inspection of the unit's first view."""

    run_id: str
    unit: int
    verdict: str
    class_name: str
    reviewer: str


@dataclass(frozen=True)
class Sampled:
    """How far a sample is. Of strata, `wanted` and `reserve` the order is the same."""

    sample_id: str
    since: date
    until: date
    line: str
    strata: tuple[truth.Stratum, ...]
    wanted: tuple[int, ...]                      # units to read, read ones included
    reserve: tuple[int, ...]                     # units that were written down: more cannot be read of this sample
    queue: tuple[tuple[int, ...], ...]           # the next units, each the inspections of its views; repeats look like the others
    left: int                                    # how many units the queue would be, written out
    first: tuple[Read, ...]                      # first answers, the earliest first
    again: tuple[tuple[Read, Read], ...]         # units judged twice: first answer and second
    wrong: dict[int, str]                        # units of which people said otherwise than the model: missed | rejected
    true: truth.TrueRate
    agreement: reference.Agreement | None        # None while nothing was judged twice

    def needed(self, half_width: float) -> int:
        """More units to read, as far as this sample has them, until the true rate is known within +- half_width."""
        return sum(_wanted(self, half_width)) - sum(s.read for s in self.strata)

    def more(self, half_width: float) -> int:
        """How many of them have not been asked for yet."""
        return sum(_wanted(self, half_width)) - sum(self.wanted)

    def short(self, half_width: float) -> bool:
        """Whether this sample has fewer than that."""
        return any(n > r - s.read for n, s, r in zip(truth.still_needed(self.strata, half_width), self.strata, self.reserve, strict=True))


# ---- what people do

@needs("review")
def draw_sample(plant: str, since: date, until: date, line: str = "", by: str = "") -> str:
    """Draw a sample of the units of these production days and write it down. Raises ConfigError where nothing can be read."""
    seed = secrets.token_hex(8)
    strata = sampling.frame(house.database(), plant, since, until, line, seed)
    if not any(s["order"] for s in strata):
        raise ConfigError("No part of this period counts in the trends and has its pictures still here. Choose a longer period.")
    return _record("sample", dict(since=str(since), until=str(until), line=line, seed=seed, near=sampling.NEAR, strata=strata,
                                  wanted=_share_out(strata)), plant, by)


def _share_out(strata: list[dict[str, Any]]) -> list[int]:
    """About FIRST units, most where a stratum is large and in doubt."""
    guess = [GUESS.get((s["rejected"], s["band"].removesuffix(", few kept")), 0.02) for s in strata]
    weight = [s["units"] * (p * (1 - p)) ** 0.5 for s, p in zip(strata, guess, strict=True)]
    return [min(max(round(FIRST * w / sum(weight)), LEAST), len(s["order"])) for w, s in zip(weight, strata, strict=True)]


@needs("review")
def ask_more(plant: str, sample_id: str, half_width: float, by: str = "") -> str:
    """Ask for as many more units as the sample needs and has. Raises ConfigError where it needs none, or is no more the newest."""
    found = sampled(plant)
    if found is None or found.sample_id != sample_id:
        raise ConfigError("Another sample was drawn meanwhile. Look at that one.")
    if not found.more(half_width):
        raise ConfigError("This sample has no more to give; draw a new one." if found.short(half_width) else
                          "What is asked for already is enough.")
    return _record("sample", dict(more_of=sample_id, half_width=half_width, wanted=_wanted(found, half_width)), plant, by)


@needs("review")
def read(plant: str, sample_id: str, views: tuple[int, ...], verdict: str, class_name: str = "", reviewer: str = "") -> str:
    """What a person said of a unit, the model's answer unseen. Returns the id that `undo` takes."""
    if verdict not in VERDICTS:
        raise ConfigError(f"A part is judged {' or '.join(VERDICTS)}, not {verdict!r}.")
    return _record("read", dict(sample=sample_id, inspection_ids=[int(v) for v in views], verdict=verdict, class_name=class_name,
                                reviewer=signed(reviewer)), plant, reviewer)


@needs("review")
def note_ability(plant: str, found: int, of_defective: int, passed: int, of_good: int, by: str = "") -> str:
    """Write down what the model in use was measured to do on pieces of known truth, other than those it inspects. Raises ConfigError."""
    model = _model_in_use(house.database())
    truth.rogan_gladen(0, 1, found, of_defective, passed, of_good)               # refuses what says nothing
    return _record("ability", dict(model_id=model, found=found, of_defective=of_defective, passed=passed, of_good=of_good), plant, by)


def _record(recipe: str, config: dict[str, Any], plant: str, by: str) -> str:
    """Seen by the next question, though thousands of runs lie beside it."""
    opened = house.opened()
    run_id = events.record(recipe, config, plant, signed(by))
    opened.ingest(run_ids=[run_id])
    return run_id


# ---- what follows

def sampled(plant: str, ahead: int = 12) -> Sampled | None:
    """The newest sample of a plant; None where none was drawn. Of who read what, only one's own name stands in it, but for the admin."""
    known = sampling.samples(house.database(), plant)
    return _without_others(_standing(house.database(), known[0], ahead)) if known else None


def _without_others(found: Sampled) -> Sampled:
    who = acting()
    if who.may("users"):
        return found
    first, again = (tuple(map(partial(_unnamed, who.name), found.first)),
                    tuple((_unnamed(who.name, a), _unnamed(who.name, b)) for a, b in found.again))
    return replace(found, first=first, again=again)


def _unnamed(name: str, one: Read) -> Read:
    return one if one.reviewer == name else replace(one, reviewer="")


def picture(views: tuple[int, ...], boxes: bool, width: int, format: str = "jpeg") -> bytes:
    """All views of a unit in one encoded picture, with the model's boxes or without. Raises NotFoundError, ImageError."""
    from backend.jobs import pictures

    db = house.database()
    each = []
    for view in views:
        found = pictures.passing(pictures.rows(queries.detections(db, [view]))) if boxes else []
        each.append((str(queries.inspection(db, view)["image_id"]), found))
    return pictures.beside(each, max(width // min(len(views), 2), 1), format)


def earlier(plant: str) -> list[Sampled]:
    """The samples before the newest, of which somebody has read a part."""
    found = [_without_others(_standing(house.database(), one, 0)) for one in sampling.samples(house.database(), plant)[1:10]]
    return [one for one in found if one.first]


def ability(plant: str, sample_id: str, defective: int, units: int) -> tuple[dict[str, int], Rate] | str | None:
    """What the model in use was measured to do, and the true rate that follows for a sample's units; None where nobody measured it, and
    why none follows where another model judged some of the sample's pictures (of those that were written down to be read)."""
    db = house.database()
    try:
        model = _model_in_use(db)
    except NotFoundError:
        return None
    said, sample = sampling.measured(db, plant, model), next((s for s in sampling.samples(db, plant) if s["sample_id"] == sample_id), None)
    if said is None or sample is None or not units:
        return None
    if sampling.models_of(db, [view for s in sample["strata"] for views in s["order"] for view in views]) != {model}:
        return OTHER_MODEL
    return said, truth.rogan_gladen(defective, units, said["found"], said["of_defective"], said["passed"], said["of_good"])


def _model_in_use(db: Database) -> str:
    rows = engineering.models(db, "detector")
    used = rows[rows["promoted"].astype(bool)]["model_id"].tolist()
    if not used:
        raise NotFoundError("No model is in use yet.")
    return str(used[0])


def _standing(db: Database, config: dict[str, Any], ahead: int) -> Sampled:
    order = [[tuple(views) for views in s["order"]] for s in config["strata"]]
    stratum = {views[0]: h for h, drawn in enumerate(order) for views in drawn}
    first, again = _answers(db, config["sample_id"], set(stratum))
    said: list[list[Read]] = [[] for _ in order]
    for answer in first.values():
        said[stratum[answer.unit]].append(answer)
    strata = tuple(truth.Stratum(s["rejected"], s["band"], s["units"], len(reads), sum(r.verdict == "defective" for r in reads))
                   for s, reads in zip(config["strata"], said, strict=True))
    waiting, repeat = _waiting(order, config["wanted"], first), _repeat(config["sample_id"], first, again)
    views = {v[0]: v for drawn in order for v in drawn}
    queue = [*([views[repeat]] if repeat is not None else []), *waiting]
    to_come = max((len(first) + len(waiting)) // EVERY - len(again), 0)
    wrong = {r.unit: "rejected" if r.verdict == "good" else "missed" for r in first.values()
             if strata[stratum[r.unit]].rejected == (r.verdict == "good")}
    judged = [(a.verdict, b.verdict) for a, b in again.values()]
    return Sampled(config["sample_id"], date.fromisoformat(config["since"]), date.fromisoformat(config["until"]), config["line"], strata,
                   tuple(config["wanted"]), tuple(map(len, order)), tuple(queue[:ahead]), len(waiting) + to_come, tuple(first.values()),
                   tuple(again.values()), wrong, truth.true_rate(strata),
                   reference.agreement(*zip(*judged, strict=True)) if judged else None)


def _answers(db: Database, sample_id: str, units: set[int]) -> tuple[dict[int, Read], dict[int, tuple[Read, Read]]]:
    """Of each unit the first answer; and, where there is one, the second beside it. A second one that came before GAP other units were
    read is a key pressed twice, or a page left open: nobody had forgotten the first."""
    first: dict[int, Read] = {}
    place: dict[int, int] = {}
    again: dict[int, tuple[Read, Read]] = {}
    for row in sampling.reads(db, sample_id):
        one = Read(row["run_id"], row["unit"], row["verdict"], row["class_name"], row["reviewer"])
        if one.unit in units and first.setdefault(one.unit, one) is one:
            place[one.unit] = len(first)
        elif one.unit in units and len(first) - place[one.unit] >= GAP:
            again.setdefault(one.unit, (first[one.unit], one))
    return first, again


def _waiting(order: list[list[tuple[int, ...]]], wanted: list[int], first: dict[int, Read]) -> list[tuple[int, ...]]:
    """Units that nobody has read, spread so that every beginning holds the same share of each stratum: one may stop at any time."""
    ranked = []
    for drawn, n in zip(order, wanted, strict=True):
        unread = [views for views in drawn[:n] if views[0] not in first]
        ranked += [((k + _lot(str(views[0]))) / len(unread), views) for k, views in enumerate(unread)]
    return [views for _, views in sorted(ranked)]


def _repeat(sample_id: str, first: dict[int, Read], again: dict[int, tuple[Read, Read]]) -> int | None:
    """The unit that comes again now; None unless one is due. By lot among those not read lately, always the same."""
    if len(first) // EVERY <= len(again):
        return None
    could = [unit for unit in list(first)[:-GAP] if unit not in again]
    return min(could, key=lambda unit: _lot(f"{sample_id}/{unit}"), default=None)


def _lot(text: str) -> float:
    """A number from 0 to 1 that says nothing of its text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 2**48


def _wanted(found: Sampled, half_width: float) -> list[int]:
    more = truth.still_needed(found.strata, half_width)
    return [max(w, min(s.read + n, r)) for w, s, n, r in zip(found.wanted, found.strata, more, found.reserve, strict=True)]


reading(globals())
