"""A page that is kept up to date, served to browsers of this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from breadcrumbs.errors import OutputError
from breadcrumbs.pages import html
from breadcrumbs.pages.page import Page

HOST = "127.0.0.1"
#: What browsers of this machine call it; others, such as a site whose name leads here, are refused.
NAMES = ("127.0.0.1", "localhost")


class Server:
    """Serves the page that ``make`` returns, made again when ``state`` says something else.

    port: 0 for any that is free; OutputError where it is taken. url: where the page is.
    """

    def __init__(self, make: Callable[[], Page], state: Callable[[], str], port: int = 0):
        self.make, self.state = make, state
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] | None = None
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(self))
        except OSError as error:
            raise OutputError(
                f"port {port}: cannot be listened on: {error.strerror}. Give another --port, or"
                " none."
            ) from None
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"

    def run(self) -> None:
        """Serve until `close` is called, or the process is interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def close(self) -> None:
        """End `run`, which is in another thread."""
        self._server.shutdown()

    def page(self) -> bytes:
        """Return the page as it is now."""
        with self._lock:
            now = self.state()
            if self._made is None or self._made[0] != now:
                self._made = now, html.to_html(self.make(), live=now).encode()
            return self._made[1]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, _, _ = self.headers.get("Host", "").partition(":")
            if name not in NAMES:
                self.send_error(403)
            elif self.path == "/":
                self._answer(server.page(), "text/html; charset=utf-8")
            elif self.path == "/state":
                self._answer(server.state().encode(), "text/plain; charset=utf-8")
            else:
                self.send_error(404)

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            for key, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("Referrer-Policy", "no-referrer"),
            ):
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    return Handler
