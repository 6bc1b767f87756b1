"""A server on this machine that gives parts of files, counts what is asked, and fails on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Served:
    """files: by path. faults: by path, answers before the right one: a status, or ``cut``.

    asked: method, path and range of every request; headers: of every request. latency: seconds.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, tuple[int, int] | None]] = field(default_factory=list)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    latency: float = 0.0
    before: Callable[[str], None] = lambda path: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def parts(self, path: str) -> list[tuple[int, int]]:
        """Return the ranges of a file that were asked for, in order of their bytes."""
        return sorted(part for how, at, part in self.asked if at == path and part and how == "GET")

    def requests(self) -> Counter[str]:
        """Return how often each path was asked for, in any way."""
        return Counter(path for _, path, _ in self.asked)


def etag(data: bytes) -> str:
    """Return the tag of a file."""
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def serving() -> Iterator[Served]:
    """Serve on a free port until the end."""
    it = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            part = (int(found[1]), int(found[2]) + 1) if found else None
            time.sleep(it.latency)
            with it.lock:
                it.asked.append((self.command, path, part))
                it.headers.append((path, dict(self.headers)))
                fault = it.faults[path].pop(0) if it.faults.get(path) else None
                it.before(path)
            if path in it.moved:
                return self.answer(302, b"", Location=it.moved[path])
            data = it.files.get(path)
            if isinstance(fault, int) or data is None:
                return self.answer(fault if isinstance(fault, int) else 404, b"<Code>No</Code>")
            if self.headers.get("If-Match") not in (None, etag(data)):
                return self.answer(412, b"")
            if part is None:
                return self.answer(200, data, ETag=etag(data))
            some = data[part[0] : part[1]]
            whole = f"bytes {part[0]}-{part[0] + len(some) - 1}/{len(data)}"
            cut = len(some) // 2 if fault == "cut" else None
            self.answer(206, some, cut, ETag=etag(data), Content_Range=whole)

        def answer(self, status: int, data: bytes, cut: int | None = None, **more: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in more.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:cut])
            self.close_connection = cut is not None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
