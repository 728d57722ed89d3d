"""Where messages go: what people set in the app, and what stands in `alerts.toml` in the data folder (DIFFSPECT_ALERTS names another file).

    [[channel]]
    name = "Shift leaders"                 # a name of its own
    kind = "mail"                          # mail | webhook | file
    server = "relay.plant.example"         # mail: the plant's relay; port, security (none | starttls | tls), user
    secret = "RELAY_PASSWORD"              # name of an environment variable, or of an entry in .streamlit/secrets.toml
    sender = "diffspect@plant.example"
    to = ["shift.leaders@plant.example"]

    webhook    url, and `secret`: the name of a bearer token. {NAME} in the url stands for a secret too; both want https://
    file       folder: one JSON file per message. In the app a name below `data/alerts/`; in alerts.toml any folder

No secret is ever stored or shown: settings hold its name, and it is read when a message is sent. What people set in the app may name only
secrets that begin with DIFFSPECT_SECRET_: any visitor may set a channel, and one that names a variable of other programs would give it
away. alerts.toml, which only who has the machine can write, may name any. For the same reason what is set in the app may go only to
hosts that `outbound` allows. Pictures stay in the house unless a channel asks for them. Knows nothing of sending.
"""

import logging
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from backend import rundir
from backend.config import Config, data_root
from backend.errors import ConfigError
from backend.jobs import outbound, runs
from backend.quality.targets import short

KINDS = {"mail": "E-mail by the plant's relay", "webhook": "Webhook", "file": "File"}
SECURITY = {"none": "None", "starttls": "STARTTLS", "tls": "TLS"}
PORTS = {"none": 25, "starttls": 587, "tls": 465}
OF_APP = "DIFFSPECT_SECRET_"           # how a secret begins that a channel of the app may name
HOME = ("127.0.0.1", "localhost")      # no network between
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_FOLDER = re.compile(r"[\w][\w .-]{0,60}")
_ADDRESS = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Channel(Config):
    """`to_json` is the config of an inline run `channel`; the newest of a name holds, and one that is `removed` ends it."""

    name: str = ""
    kind: str = field(default="webhook", metadata={"choices": tuple(KINDS)})
    url: str = ""                      # of a webhook
    folder: str = ""                   # of a file
    server: str = ""                   # of mail
    port: int | None = field(default=None, metadata={"low": 1, "high": 65535})      # none: the usual one
    security: str = field(default="starttls", metadata={"choices": tuple(SECURITY)})
    user: str = ""                     # '': without login
    sender: str = ""
    to: list[str] = field(default_factory=list)
    secret: str = ""                   # the name of a password, or of a webhook's token
    over: bool = True                  # say too when an alarm is over
    pictures: bool = False             # of mail: a shift report with its pictures
    removed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.strip():
            raise ConfigError("Give the channel a name.")
        if self.secret and not _NAME.fullmatch(self.secret):
            raise ConfigError("Name the variable that holds the secret (letters, digits, _), not the secret itself.")
        if not self.removed:
            {"mail": self._mail, "webhook": self._webhook, "file": self._file}[self.kind]()

    def _mail(self) -> None:
        if not self.server.strip() or any(c.isspace() for c in self.server):
            raise ConfigError("Mail needs the name of the plant's relay.")
        bad = [a for a in (self.sender, *self.to) if not _ADDRESS.fullmatch(str(a))]
        if bad or not self.to:
            raise ConfigError(f"{bad[0]!r} is no mail address." if bad else "Say to whom mail goes.")
        if foreign := [a for a in (self.sender, *self.to) if not a.isascii()]:
            raise ConfigError(f"{foreign[0]!r} has letters that many relays do not take. Give an address of ASCII letters.")
        if self.user and not self.secret:
            raise ConfigError("A login needs the name of the variable that holds its password.")
        if self.user and self.security == "none":
            raise ConfigError("A password is not sent over a line that is not encrypted. Choose STARTTLS or TLS.")

    def _webhook(self) -> None:
        try:
            parts = urlsplit(_PLACE.sub("x", self.url))
        except ValueError as error:
            raise ConfigError(f"The address of the webhook cannot be used: {error}.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in self.url):
            raise ConfigError("A webhook needs an address that begins with http:// or https://.")
        if parts.scheme == "http" and self.secrets and parts.hostname not in HOME:
            raise ConfigError("A secret is not sent over a line that is not encrypted. Give an address that begins with https://.")
        if parts.username or parts.password:
            raise ConfigError("Leave name and password out of the address: name the variable that holds the token.")

    def _file(self) -> None:
        if not self.folder.strip():
            raise ConfigError("A file channel needs the name of a folder.")

    @property
    def secrets(self) -> list[str]:
        """Names of all that it needs."""
        return [name for name in (self.secret, *(_PLACE.findall(self.url) if self.kind == "webhook" else ())) if name]

    @property
    def channel_id(self) -> str:
        return short(self.name)

    @property
    def where(self) -> str:
        """What may be shown of it: where messages go."""
        match self.kind:
            case "mail":
                return f"{', '.join(self.to)} by {self.server}:{self.at_port}, {SECURITY[self.security]}" + (", login" if self.user else "")
            case "webhook":
                return self.host + (f", token {self.secret}" if self.secret else "")
            case _:
                return str(self.path)

    @property
    def host(self) -> str:
        """All of a webhook's address that may be shown: many carry a token in their path."""
        return f"{urlsplit(self.url).scheme}://{urlsplit(self.url).netloc}"

    @property
    def calls(self) -> str:
        """The host that is called; '' for a file."""
        return {"mail": self.server, "webhook": urlsplit(_PLACE.sub("x", self.url)).hostname or ""}.get(self.kind, "")

    @property
    def at_port(self) -> int:
        return self.port or PORTS[self.security]

    @property
    def path(self) -> Path:
        """Folder of a file channel."""
        return data_root() / "alerts" / self.folder


@dataclass(frozen=True)
class Known:
    """A channel in use. `since`: only what happened from then on is sent. `run_id`: what undo takes; '': it stands in alerts.toml."""

    channel: Channel
    since: datetime
    run_id: str = ""


def known() -> list[Known]:
    """All of them, by name; those of alerts.toml go before the app's of the same name. Raises ConfigError where alerts.toml is wrong."""
    found = {k.channel.name: k for k in (*_of_people(), *configured())}
    return [found[name] for name in sorted(found) if not found[name].channel.removed]


def usable() -> list[Known]:
    """For who sends: neither a mistake in alerts.toml nor one channel that cannot be used silences the others."""
    try:
        return known()
    except ConfigError as error:
        _log.warning("%s", error)
        return [k for k in _of_people() if not k.channel.removed]


def passed_over() -> list[str]:
    """A sentence on each channel of the app that cannot be used as it was stored, by an earlier version for instance."""
    return list(_stored()[1].values())


def _of_people() -> list[Known]:
    found, wrong = _stored()
    for said in wrong.values():
        _log.warning("%s", said)
    return list(found.values())


def _stored() -> tuple[dict[str, Known], dict[str, str]]:
    """By name: what holds, and why what was set last cannot be used."""
    taken_back = rundir.undone()
    found: dict[str, Known] = {}
    wrong: dict[str, str] = {}
    for path in reversed([p for p in rundir.find("channel") if p.name not in taken_back]):
        job = runs.job(path)
        name = str(job["config"].get("name"))
        wrong.pop(name, None)
        try:
            channel = Channel.from_json({k: v for k, v in job["config"].items() if k != "by"})
            channel = channel if channel.removed else of_app(channel)
        except (ConfigError, TypeError, ValueError) as error:
            found.pop(name, None)
            wrong[name] = f"Nothing is sent to {name}: {error} Add it anew under this name."
            continue
        since = found[channel.name].since if channel.name in found and not found[channel.name].channel.removed else job["created_at"]
        found[channel.name] = Known(channel, since if isinstance(since, datetime) else datetime.fromisoformat(since), path.name)
    return found, wrong


def of_app(channel: Channel) -> Channel:
    """As the app may save and use it: it writes below `data/alerts/` alone, names no secret of other programs, and calls no host but those
    that were allowed. Raises ConfigError."""
    if channel.kind == "file" and not _FOLDER.fullmatch(channel.folder):
        raise ConfigError("Name a folder without slashes; it lies in data/alerts. Any other folder is set in alerts.toml.")
    if foreign := [name for name in channel.secrets if not name.startswith(OF_APP)]:
        raise ConfigError(f"{foreign[0]}: a channel that is set in the app may name only secrets that begin with {OF_APP}. Give it such a "
                          "name, or set the channel in alerts.toml.")
    if channel.kind != "file" and not channel.removed:
        outbound.check(channel.calls)
    return replace(channel, url=channel.url.strip(), name=channel.name.strip())


def configured() -> list[Known]:
    """Channels of alerts.toml."""
    path = outbound.alerts_file()
    if not path.exists():
        return []
    try:
        tables = tomllib.loads(path.read_text()).get("channel", [])
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return [Known(Channel.from_json(dict(t)), since) for t in tables]
    except (tomllib.TOMLDecodeError, OSError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path.name} cannot be used: {error}") from error


def secret(name: str) -> str:
    """An environment variable, else an entry of .streamlit/secrets.toml beside the program. Raises ConfigError where there is neither."""
    if value := os.environ.get(name):
        return value
    path = Path(__file__).resolve().parents[2] / ".streamlit" / "secrets.toml"
    try:
        value = tomllib.loads(path.read_text()).get(name) if path.exists() else None
    except (OSError, tomllib.TOMLDecodeError):
        raise ConfigError(".streamlit/secrets.toml cannot be read.") from None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"The secret {name} is set neither in the environment nor in .streamlit/secrets.toml.")
    return value


def filled(url: str) -> str:
    """An address with its secrets in their places."""
    return _PLACE.sub(lambda m: secret(m[1]), url)

