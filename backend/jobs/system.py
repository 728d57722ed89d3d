"""What looks after the machine and its data, for the page System: checks, backup, restore, retention; each written to the audit log before
it is asked for. See `preflight`, `archives`, `retention` and `letting_go`."""

from dataclasses import replace
from typing import Any

from backend.config import Backup, Restore, Retention
from backend.jobs import audit, preflight, retention
from backend.jobs.machine import Line
from backend.jobs.needs import needs, reading

__all__ = ["KINDS", "Line", "backup", "checks", "let_go", "outlook", "restore"]
KINDS = retention.KINDS


def checks() -> list[Line]:
    """What this machine and this data folder are like. Asks no database, so it answers where the program does not start."""
    return preflight.lines()


@needs("retention")
def backup(to: str) -> str:
    """Queue a backup; the id of its run."""
    from backend import jobs

    audit.write("backup", to)
    return jobs.submit(Backup(to=to))


@needs("retention")
def restore(file: str, into: str) -> str:
    """Queue a restore of a backup into an empty folder, which another start of the program then serves; the id of its run."""
    from backend import jobs

    audit.write("restore", into, dict(file=file))
    return jobs.submit(Restore(file=file, into=into))


@needs("retention")
def outlook(config: Retention) -> dict[str, Any]:
    """What would go, see `retention.outlook`. Raises ConfigError, ResourceError."""
    return retention.outlook(config)


@needs("retention")
def let_go(config: Retention) -> str:
    """Queue what `outlook` told of; the id of its run."""
    from backend import jobs

    audit.write("retention", more=config.to_json())
    return jobs.submit(replace(config, apply=True))


reading(globals())
