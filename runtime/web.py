"""A stream in a browser, and its health for machines: one small HTTP server.

::

    /              the picture, before|after, live figures         /snapshot.jpg  the newest picture
    /stream.mjpg   pictures as they come (multipart/x-mixed-replace)  /before.mjpg  what they were made from
    /stats.json    counts and timings      /metrics  Prometheus    /healthz  alive    /readyz  new pictures flow

Bound to this machine alone unless told otherwise, and then only with a token, given as ``?token=…``,
``Authorization: Bearer …`` or the cookie that the page sets.
"""

from __future__ import annotations

import hmac
import io
import ipaddress
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from ..engines.errors import SinkError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .frame import Emission
    from .stats import StreamStats

_log = logging.getLogger(__name__)

_QUALITY = 85
_BOUNDARY = "edgeturbo-frame"
_WAIT = 0.5
# A browser that stopped reading holds its thread no longer than this.
_SECONDS_TO_WRITE = 10.0
# Older than this, the newest picture is no sign of life.
_READY_SECONDS = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    ),
}


@dataclass(frozen=True)
class WebAddress:
    """Where to listen. ``host`` empty means this machine alone; any other than a loopback address needs a ``token``."""

    host: str = ""
    port: int = 8080
    token: str | None = None

    def __post_init__(self) -> None:
        if not self.is_local and not self.token:
            raise UsageError(
                f"http://{self.host}:{self.port} can be reached from other machines",
                expected="a token",
                hint=f"--token WORD, or http://:{self.port} for this machine alone",
            )

    @property
    def is_local(self) -> bool:
        return not self.host or _is_this_machine(self.host)


class Latest:
    """The newest emission, and its JPEGs once anybody wants them. One thread publishes, many wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._emission: Emission | None = None
        self._number = 0
        self._encoded: dict[str, tuple[int, bytes]] = {}
        self._closed = False

    def publish(self, emission: Emission) -> None:
        """Pictures must not change after they are handed over."""
        with self._changed:
            self._emission = emission
            self._number += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def jpeg(self, which: str, after: int = 0, timeout: float = 0.0) -> tuple[int, bytes] | None:
        """The newest picture (``image`` or ``before``) with its number, if one later than ``after`` comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout)
            if self._emission is None or self._number <= after:
                return None
            number, emission = self._number, self._emission
            known = self._encoded.get(which)
        if known is not None and known[0] == number:
            return known
        picture = emission.image if which == "image" else emission.frame.image
        encoded = (number, _jpeg(picture))
        self._encoded[which] = encoded
        return encoded


class WebServer:
    """Serves ``latest`` and ``stats`` on threads of its own until ``close``. ``metrics`` makes Prometheus' page."""

    def __init__(
        self,
        address: WebAddress,
        latest: Latest,
        stats: StreamStats,
        metrics: Callable[[], bytes] | None = None,
        about: dict[str, str] | None = None,
    ) -> None:
        """Raises SinkError when the port cannot be had. Port 0 takes a free one; ``url`` says which."""
        self.latest, self.stats, self.metrics = latest, stats, metrics
        self.about = about or {}
        self.address = address
        try:
            self._server = _Server((address.host or "127.0.0.1", address.port), _Handler)
        except OSError as error:
            raise SinkError(
                f"cannot listen on port {address.port}: {error.strerror}", hint="choose another port: http://:8081"
            ) from error
        self._server.web = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="web", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.address.host or '127.0.0.1'}:{self.port}/"

    def close(self) -> None:
        self.latest.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads that a browser holds are left to end by themselves: Latest is closed, so they do at once.
    block_on_close = False
    web: WebServer


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "edgeturbo"
    sys_version = ""
    timeout = _SECONDS_TO_WRITE

    def do_GET(self) -> None:
        web = self.server.web
        path = urlsplit(self.path).path
        # A browser keeps its connection: after close nobody shall be told of a stream that is over.
        self.close_connection = self.close_connection or web.latest.is_closed
        if path == "/healthz":
            self._answer(200, "text/plain", b"alive\n")
        elif not self._is_allowed(web.address):
            self._answer(403, "text/plain", b"a token is needed: /?token=...\n")
        elif path in _PAGES:
            _PAGES[path](self, web)
        else:
            self._answer(404, "text/plain", b"no such page\n")

    def _is_allowed(self, address: WebAddress) -> bool:
        if address.token is None:
            # Another site's page in a browser on this machine may not read a camera by pointing a name at 127.0.0.1.
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return _is_this_machine(host)
        return any(hmac.compare_digest(given.encode(), address.token.encode()) for given in self._tokens())

    def _tokens(self) -> list[str]:
        given = parse_qs(urlsplit(self.path).query).get("token", [])
        scheme, _, word = self.headers.get("Authorization", "").partition(" ")
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("edgeturbo")
        except CookieError:
            cookie = None
        return [*given, *([word] if scheme == "Bearer" else []), *([cookie.value] if cookie else [])]

    def page(self, web: WebServer) -> None:
        cookie = (
            {"Set-Cookie": f"edgeturbo={web.address.token}; HttpOnly; SameSite=Strict"} if web.address.token else {}
        )
        body = resources.files(__package__).joinpath("page.html").read_bytes()
        self._answer(200, "text/html; charset=utf-8", body, cookie)

    def ready(self, web: WebServer) -> None:
        last = web.stats.last_new_ns
        fresh = last is not None and time.monotonic_ns() - last < _READY_SECONDS * 1e9
        ready = fresh and web.stats.connected
        self._answer(200 if ready else 503, "text/plain", b"ready\n" if ready else b"no new pictures\n")

    def figures(self, web: WebServer) -> None:
        data: dict[str, Any] = {**web.stats.summary(), "fps": round(web.stats.rate(), 2), "about": web.about}
        data["connected"] = web.stats.connected
        self._answer(200, "application/json", json.dumps(data).encode())

    def prometheus(self, web: WebServer) -> None:
        if web.metrics is None:
            self._answer(404, "text/plain", b"metrics are part of --service\n")
            return
        self._answer(200, "text/plain; version=0.0.4; charset=utf-8", web.metrics())

    def snapshot(self, web: WebServer) -> None:
        found = web.latest.jpeg("image", timeout=_WAIT)
        if found is None:
            self._answer(503, "text/plain", b"no picture yet\n")
        else:
            self._answer(200, "image/jpeg", found[1])

    def pictures(self, web: WebServer) -> None:
        which = "before" if urlsplit(self.path).path.startswith("/before") else "image"
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self._end_headers()
        self.close_connection = True
        number = 0
        try:
            while not web.latest.is_closed:
                found = web.latest.jpeg(which, after=number, timeout=_WAIT)
                if found is not None:
                    number, data = found
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
        except OSError:
            return  # the browser went away

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self._end_headers(headers)
        self.wfile.write(body)

    def _end_headers(self, headers: dict[str, str] | None = None) -> None:
        for name, value in {**_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:  # noqa: ARG002 -- http.server's
        """Not the whole line: it may hold the token."""
        _log.debug("%s %s", urlsplit(self.path).path, code)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002, ARG002 -- http.server's
        _log.debug("a request from %s failed", self.client_address[0])


_PAGES: dict[str, Callable[[_Handler, WebServer], None]] = {
    "/": _Handler.page,
    "/readyz": _Handler.ready,
    "/stats.json": _Handler.figures,
    "/metrics": _Handler.prometheus,
    "/snapshot.jpg": _Handler.snapshot,
    "/stream.mjpg": _Handler.pictures,
    "/before.mjpg": _Handler.pictures,
}


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _jpeg(picture: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
