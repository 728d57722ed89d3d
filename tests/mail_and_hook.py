"""A real webhook and a real mail relay on this machine, small enough to read: for tests of what is sent."""

import base64
import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Hook:
    """`answers`: a status for each request to come, then 200; 0 closes the line without an answer."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def hook() -> Iterator[Hook]:
    known = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known.got.append(body | {"headers": dict(self.headers), "path": self.path})
            status = known.answers.pop(0) if known.answers else 200
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        known.url = f"http://127.0.0.1:{server.server_port}/hook"
        with _served(server):
            yield known


@dataclass
class Relay:
    port: int = 0
    letters: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    refuses: tuple[str, ...] = ()          # recipients
    greylists: tuple[str, ...] = ()        # recipients to come again later
    taken: list[str] = field(default_factory=list)             # recipients
    hangs_up: bool = False                 # after the message, without an answer


@contextmanager
def relay(certificate: Path | None = None, tls: bool = False, password: str = "") -> Iterator[Relay]:
    """With a certificate it offers STARTTLS, or speaks TLS from the start; with a password it asks for user `plant`."""
    known = Relay()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if context and certificate:
        context.load_cert_chain(certificate)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if context and tls:
                self._wrap(context)
            self._say("220 relay")
            logged_in, letter = not password, ""
            while line := self.rfile.readline().decode().strip():
                verb, _, rest = line.partition(" ")
                match verb.upper():
                    case "EHLO":
                        more = (["250-STARTTLS"] if context and not self.encrypted else []) + (["250-AUTH PLAIN"] if password else [])
                        self._say("\r\n".join(["250-relay", *more, "250 OK"]))
                    case "STARTTLS" if context:
                        self._say("220 go on")
                        self._wrap(context)
                    case "AUTH":
                        known.logins.append(base64.b64decode(rest.split()[1]).decode())
                        logged_in = known.logins[-1] == f"\0plant\0{password}"
                        self._say("235 welcome" if logged_in else "535 no")
                    case "MAIL" | "RCPT":
                        wrong = not logged_in or any(f"<{a}>" in rest for a in known.refuses)
                        later = any(f"<{a}>" in rest for a in known.greylists)
                        if verb.upper() == "RCPT" and not wrong and not later:
                            known.taken.append(rest.partition("<")[2].rstrip(">"))
                        self._say("550 not here" if wrong else "450 come again" if later else "250 OK")
                    case "DATA":
                        self._say("354 go on")
                        letter = "".join(iter(lambda: self.rfile.readline().decode(), ".\r\n"))
                        known.letters.append(letter)
                        if known.hangs_up:
                            return
                        self._say("250 queued as 7")
                    case _:
                        self._say("221 bye" if verb.upper() == "QUIT" else "250 OK")

        encrypted = tls

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def _wrap(self, context: ssl.SSLContext) -> None:
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.encrypted = True

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                pass
            self.connection.close()

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        known.port = server.server_address[1]
        with _served(server):
            yield known


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:                                                   # also of a test that fails, or the next one meets this server
        server.shutdown()
        thread.join()


def certificate(folder: Path) -> Path:
    """Of `localhost`, signed by itself, with its key."""
    path = folder / "relay.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", path],
                   check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "key.pem").read_bytes())
    return path
