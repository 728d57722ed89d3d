"""Messages about alarms, and shift reports, each to each channel once: what is due, how often it was tried, what became of it.

Stands between the runs that the lookout writes (`alarm`, `alarm-over`; `alert-test` of a person), shift reports, and `senders`. What
became of a message lies beside it in its run, `deliveries.json`, written before and after each attempt; so retries go on after a restart,
and no message is sent twice. Where the line broke after a message was handed over, or this process was killed meanwhile, nobody knows
whether it arrived: it is not sent again by itself, and the log says so. The end of an alarm waits for the alarm. From files alone; one
process delivers, by its lock.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import data_root
from backend.errors import DiffspectError
from backend.jobs import channels, locks, report_runs, runs, senders
from backend.jobs.channels import Channel
from backend.jobs.senders import Message

RECIPES = ("alarm", "alarm-over", "alert-test", "shift-report")
FIRST, LONGEST, GIVE_UP = timedelta(seconds=30), timedelta(hours=1), timedelta(days=1)       # 30 s, 1 min, 2 min ... an hour
REPORTS = 200                          # as many, and more, as a plant's shifts may get within the days in which a report is made anew
UNKNOWN = "It may have arrived, so it is not sent again by itself."
KILLED = f"Diffspect ended while it was being sent. {UNKNOWN}"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """One message to one channel, as the log shows it."""

    run_id: str
    at: datetime                       # when it was asked for
    text: str
    channel: str
    where: str
    state: str
    attempts: int
    said: str                          # of the last attempt
    next_at: datetime | None


def deliver(moment: datetime | None = None) -> int:
    """Send what is due; returns how many messages went out. Nothing where another process delivers."""
    with locks.hold(data_root() / "delivery.lock") as taken:
        if not taken:
            return 0
        now = moment or datetime.now(UTC)
        due = list(_recent(now))
        ways = channels.usable() if due else []
        broken: set[str] = set()                                 # a relay that is down is asked once a round
        alarms = {str(runs.job(p)["config"].get("id")): p for p in due if rundir.recipe_of(p.name) == "alarm"}
        return sum(_deliver(path, ways, broken, now, alarms) for path in due)


def _recent(now: datetime) -> Iterator[Path]:
    """Runs that speak of something and are young enough, the oldest first. A shift report is named by its shift, which may have ended days
    before it was made: among the others it would lie behind what is too old."""
    def young(path: Path) -> bool:
        return now - _asked(path) <= 2 * GIVE_UP

    found = [p for p in rundir.find(*RECIPES) if runs.readable(p)]
    reports = [p for p in found if rundir.recipe_of(p.name) == "shift-report"]
    others = (p for p in found if rundir.recipe_of(p.name) != "shift-report")
    said = [*takewhile(young, others), *filter(young, reports[:REPORTS])]
    return (p for p in sorted(said, key=_asked) if runs.job(p)["plant"] == "real" and not runs.job(p)["config"].get("quiet")
            and (rundir.recipe_of(p.name) != "shift-report" or report_runs.channels(p)))


def _asked(path: Path) -> datetime:
    return datetime.fromisoformat(runs.job(path)["created_at"])


def _deliver(path: Path, ways: list[channels.Known], broken: set[str], now: datetime, alarms: dict[str, Path]) -> int:
    config, sent = runs.job(path)["config"], 0
    began = alarms.get(str(config.get("alarm"))) if rundir.recipe_of(path.name) == "alarm-over" else None
    for known in ways:
        channel = known.channel
        begun = channel.channel_id in _entries(path)             # what waits goes on, though settings were written anew meanwhile
        mine = config.get("channel") == channel.name if "channel" in config else begun or known.since <= _asked(path)
        if rundir.recipe_of(path.name) == "shift-report":
            mine = channel.name in report_runs.channels(path)
        if not mine or (rundir.recipe_of(path.name) == "alarm-over" and not channel.over):
            continue
        first = _entries(began).get(channel.channel_id, {}).get("state") if began else None
        if first in ("waiting", "given up"):                     # "over" of what nobody was told of says nothing
            continue
        entry = _entries(path).get(channel.channel_id) or dict(state="waiting", attempts=0, log=[])
        if entry["state"] == "sending":                          # whoever sent it was killed
            _write(path, channel, entry | dict(state="unknown"), KILLED, now)
        elif entry["state"] == "waiting" and channel.channel_id not in broken and _moment(entry.get("next_at"), now) <= now:
            sent += _attempt(path, channel, entry, now)
            if _entries(path)[channel.channel_id]["state"] == "waiting":
                broken.add(channel.channel_id)
    return sent


def _attempt(path: Path, channel: Channel, entry: dict[str, Any], now: datetime) -> bool:
    """Send once. What is written before is all that a restart has to know."""
    entry = entry | dict(attempts=entry["attempts"] + 1)
    _write(path, channel, entry | dict(state="sending"), "", now)
    try:
        said = senders.send(replace(channel, to=entry.get("to") or channel.to), message(path))
    except senders.Unsure as error:
        _write(path, channel, entry | dict(state="unknown"), f"{error} {UNKNOWN}", now)
        return False
    except (DiffspectError, OSError) as error:
        if isinstance(error, senders.Partly):                    # the others have it
            entry |= dict(to=error.rest)
        last = "channel" in runs.job(path)["config"] or now - _asked(path) > GIVE_UP           # a test is tried once
        wait = min(FIRST * 2 ** min(entry["attempts"] - 1, 12), LONGEST)
        _write(path, channel, entry | dict(state="given up" if last else "waiting", next_at=(now + wait).isoformat()), str(error), now)
        _log.warning("A message to %s could not be sent: %s", channel.name, error)
        return False
    except Exception as error:                                   # another try would end the same way; its words may show a secret
        _write(path, channel, entry | dict(state="given up"), f"It could not be sent ({type(error).__name__}).", now)
        _log.exception("A message to %s could not be sent.", channel.name)
        return False
    _write(path, channel, entry | dict(state="sent"), said, now)
    return True


def _write(path: Path, channel: Channel, entry: dict[str, Any], said: str, now: datetime) -> None:
    log = [*entry["log"], dict(at=now.isoformat(), state=entry["state"], said=said)] if said else entry["log"]
    whole = _entries(path) | {channel.channel_id: entry | dict(channel=channel.name, where=channel.where, log=log[-20:])}
    rundir.write_json(path / "deliveries.json", whole)


def _entries(path: Path) -> dict[str, Any]:
    file = path / "deliveries.json"
    return dict(rundir.read_json(file)) if file.exists() else {}


def _moment(value: Any, otherwise: datetime) -> datetime:
    return datetime.fromisoformat(str(value)) if value else otherwise


def message(path: Path) -> Message:
    """What is said of a run. A person's 'send again' names another run, whose message it is."""
    job = runs.job(path)
    config = job["config"]
    if config.get("again"):
        return message(rundir.run_path(str(config["again"])))
    if job["recipe"] == "shift-report":
        return _report(path, job)
    event = {"alarm": "opened", "alarm-over": "over"}.get(job["recipe"], "test")
    text = {"opened": str(config.get("text")), "over": f"Over: {config.get('was')}. {config.get('text')}",
            "test": "This is a test. Alarms come this way."}[event]
    return Message(path.name, event, text, _asked(path), config)


def _report(path: Path, job: dict[str, Any]) -> Message:
    """A shift report, in the words of its headline. A new edition replaces the file that a folder had of it."""
    done = rundir.read_json(path / "result.json")
    again = f" (edition {done['edition']})" if done["edition"] > 1 else ""
    text = f"Shift report {done['shift']}, {done['day']}{again}: {done['sentence']}"
    shown = dict(page="report", query=dict(shift=f"{done['day']} {done['shift']}", plant=job["plant"]), kind="report")
    return Message(path.name, "report", text, _asked(path), shown, path / "report.html", done["name"])


def asked() -> list[str]:
    """Tests that a person asked for a moment ago and that nobody has tried yet."""
    now = datetime.now(UTC)
    young = takewhile(lambda p: now - _asked(p) <= timedelta(minutes=5), filter(runs.readable, rundir.find("alert-test")))
    return [p.name for p in young if not _entries(p)]


def log(limit: int = 100) -> list[Delivery]:
    """What became of messages, the newest first."""
    found: list[Delivery] = []
    for path in filter(runs.readable, rundir.find(*RECIPES)):
        if len(found) >= limit:
            break
        for entry in _entries(path).values():
            said = entry["log"][-1]["said"] if entry["log"] else ""
            then = _moment(entry["next_at"], _asked(path)) if entry["state"] == "waiting" and entry.get("next_at") else None
            found.append(Delivery(path.name, _asked(path), message(path).text, entry["channel"], entry["where"], entry["state"],
                                  entry["attempts"], said, then))
    return found
