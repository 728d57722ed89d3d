"""One message out of the house: by mail through the plant's relay, to a webhook, or as a file. The standard library does all three.

Each sender either returns what the other side said, or raises: DiffspectError or OSError where the message surely did not arrive and may be
tried again, `Unsure` where it was handed over and nobody answered. Each message carries a name of its own (Message-ID, Idempotency-Key,
file name), by which whoever receives it can tell a second one. Secrets are read here and are in no text that leaves here. Who is called
`outbound` has the last word on, of every address anew.
"""

import http.client
import json
import os
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from backend import __version__, rundir
from backend.errors import ResourceError
from backend.jobs import outbound, report_runs
from backend.jobs.channels import Channel, filled, secret

WAIT_S = 15.0
HANDED = (408, 500, 502, 504)          # of a webhook: whoever answers so may have taken the message before


class Unsure(Exception):
    """It was handed over, and nobody answered."""


class Partly(ResourceError):
    """The relay took it for some, and asked to be tried again for the rest."""

    def __init__(self, said: str, rest: list[str]) -> None:
        super().__init__(said)
        self.rest = rest


@dataclass(frozen=True)
class Message:
    message_id: str
    event: str                         # opened | over | test | report
    text: str
    at: datetime
    config: dict[str, Any]
    file: Path | None = None           # a shift report: a folder gets it, and mail, without its pictures unless the channel asks for them
    file_name: str = ""

    def attached(self, pictures: bool) -> Path | None:
        """What mail carries; None too where an older program has made the report, with its pictures in it."""
        file = self.file if pictures or self.file is None else self.file.with_name(report_runs.BARE)
        return file if file is not None and file.exists() else None

    @property
    def link(self) -> str:
        """To its pictures, where DIFFSPECT_URL says under which address people reach the app."""
        base = os.environ.get("DIFFSPECT_URL", "").rstrip("/")
        page, query = str(self.config.get("page") or "overview"), self.config.get("query") or {}
        return f"{base}/{page}{'?' if query else ''}{urlencode(query)}" if base else ""

    def to_json(self) -> dict[str, Any]:
        named = {n: self.config.get(n) or "" for n in ("kind", "line", "product", "class_name", "since", "hint")}
        return dict(id=self.message_id, event=self.event, text=self.text, at=self.at.isoformat(), **named,
                    reasons=self.config.get("reasons") or [], link=self.link)

    def body(self, attached: bool) -> str:
        parts = [self.text.rstrip(".") + ".", str(self.config.get("hint") or ""), *(f"- {r}" for r in self.config.get("reasons") or []),
                 f"See the pictures: {self.link}" if self.link and self.event != "test" else "",
                 "The report is attached; it opens in any browser, and prints." if attached else "", "Diffspect, surface inspection"]
        return "\n\n".join(filter(None, parts)) + "\n"


def send(channel: Channel, message: Message) -> str:
    """Returns what the other side said."""
    return {"mail": _mail, "webhook": _webhook, "file": _file}[channel.kind](channel, message)


# ---- a file


def _file(channel: Channel, message: Message) -> str:
    path = channel.path / f"{message.message_id}.json"
    channel.path.mkdir(parents=True, exist_ok=True)
    if message.file:
        rundir.write_bytes(channel.path / message.file_name, message.file.read_bytes())
        return message.file_name
    if not path.exists():
        rundir.write_json(path, message.to_json())
    return path.name


# ---- a webhook


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message that is sent on elsewhere would lose its body, or take a token where it does not belong."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Plain(http.client.HTTPConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._create_connection = outbound.connect


class _Secure(http.client.HTTPSConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._create_connection = outbound.connect


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Plain, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Secure, request)


def _webhook(channel: Channel, message: Message) -> str:
    headers = {"Content-Type": "application/json", "User-Agent": f"diffspect/{__version__}", "Idempotency-Key": message.message_id}
    if channel.secret:
        headers["Authorization"] = f"Bearer {secret(channel.secret)}"
    try:
        outbound.check(urlsplit(filled(channel.url)).hostname or "")
        request = urllib.request.Request(filled(channel.url), json.dumps(message.to_json()).encode(), headers, method="POST")
        with urllib.request.build_opener(_NoRedirect, _Http, _Https).open(request, timeout=WAIT_S) as answer:
            return f"{answer.status} {answer.reason}"
    except urllib.error.HTTPError as error:
        kind = Unsure if error.code in HANDED else ResourceError
        raise kind(f"The webhook answered {error.code} {error.reason}.") from None
    except urllib.error.URLError as error:                       # it was never reached, or refused the connection
        raise ResourceError(f"The webhook cannot be reached: {error.reason}.") from None
    except (http.client.InvalidURL, ValueError):                 # its words would show the address, and a secret in it
        raise ResourceError("The address of the webhook cannot be used.") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unsure(f"The webhook did not answer ({type(error).__name__}).") from None


# ---- mail


class _Relay(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return outbound.connect((host, port), timeout)


class _SecureRelay(smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(outbound.connect((host, port), timeout), server_hostname=host)


def _mail(channel: Channel, message: Message) -> str:
    with _connected(channel) as relay:
        code, said = relay.mail(channel.sender)
        if code != 250:
            raise ResourceError(f"The relay does not take mail from {channel.sender}: {_line(said)}.")
        refused = {a: answer for a in channel.to if (answer := relay.rcpt(a))[0] not in (250, 251)}
        if len(refused) == len(channel.to):
            raise ResourceError(f"The relay takes mail for none of them: {_line(next(iter(refused.values()))[1])}.")
        try:
            code, said = relay.data(_letter(channel, message).as_bytes())
        except smtplib.SMTPDataError as error:
            raise ResourceError(f"The relay did not take the message: {_line(error.smtp_error)}.") from None
        except (OSError, smtplib.SMTPException) as error:
            raise Unsure(f"The relay did not answer ({type(error).__name__}).") from None
        if code != 250:
            raise ResourceError(f"The relay did not take the message: {_line(said)}.")
        whole = f"{_line(said)}" + (f"; not taken for {', '.join(refused)}" if refused else "")
        if rest := [a for a, (code, _) in refused.items() if 400 <= code < 500]:         # greylisting
            raise Partly(whole, rest)
        return whole


@contextmanager
def _connected(channel: Channel) -> Iterator[smtplib.SMTP]:
    """The relay, greeted, encrypted and logged in as the channel asks. What goes wrong at the goodbye is of no interest."""
    outbound.check(channel.server)
    relay = _Relay(timeout=WAIT_S) if channel.security != "tls" else _SecureRelay(timeout=WAIT_S, context=ssl.create_default_context())
    try:
        _greet(relay, channel)
        yield relay
        with suppress(OSError, smtplib.SMTPException):
            relay.quit()
    finally:
        relay.close()


def _greet(relay: smtplib.SMTP, channel: Channel) -> None:
    try:
        relay._host = channel.server                             # type: ignore[attr-defined]  # whose certificate it has to be
        relay.connect(channel.server, channel.at_port)
        if channel.security == "starttls":
            relay.starttls(context=ssl.create_default_context())
        if channel.user:
            relay.login(channel.user, secret(channel.secret))
    except ssl.SSLError as error:
        raise ResourceError(f"The relay cannot be trusted: {error.reason or error}. SSL_CERT_FILE names a plant's own authority.") from None
    except smtplib.SMTPAuthenticationError as error:
        raise ResourceError(f"The relay refused the login ({error.smtp_code}).") from None
    except UnicodeError:                                         # its words would show a letter of the password
        raise ResourceError("The login or its password has letters that are not ASCII.") from None
    except smtplib.SMTPException as error:
        raise ResourceError(f"The relay does not work as asked: {error}") from None
    except OSError as error:
        raise ResourceError(f"The relay {channel.server}:{channel.at_port} cannot be reached: {error.strerror or error}.") from None


def _letter(channel: Channel, message: Message) -> EmailMessage:
    letter = EmailMessage()
    letter["Subject"] = " ".join(f"Diffspect: {message.text}".split())[:200]
    letter["From"], letter["To"], letter["Date"] = channel.sender, ", ".join(channel.to), format_datetime(message.at)
    letter["Message-ID"], letter["Auto-Submitted"] = f"<{message.message_id}.{channel.channel_id}@diffspect>", "auto-generated"
    file = message.attached(channel.pictures)
    letter.set_content(message.body(file is not None))
    if file is not None:
        letter.add_attachment(file.read_bytes(), "text", "html", filename=message.file_name)
    return letter


def _line(said: Any) -> str:
    return " ".join((said.decode(errors="replace") if isinstance(said, bytes) else str(said)).split())[:200]
