"""A bucket on this machine: moto's S3, with what is asked, and answers that go wrong on demand."""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: Of a request: method, path without the bucket, query.
Asked = tuple[str, str, str]
EXPIRED = ("400 Bad Request", "<Error><Code>ExpiredToken</Code><Message>old</Message></Error>")
BUSY = ("503 Slow Down", "<Error><Code>SlowDown</Code></Error>")


@dataclass
class S3:
    """url: of the server. asked: all requests. before: is called with each, and may return an
    answer in place of the right one. careless: whether conditions of requests are not heeded."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    before: Callable[[Asked], tuple[str, str] | None] = lambda asked: None
    careless: bool = False

    def put(self, path: str) -> int:
        """Return how often an object was put whole, or its upload completed."""
        return sum(
            at == path and ((how == "PUT" and not query) or (how == "POST" and "uploadId" in query))
            for how, at, query in self.asked
        )

    def pending(self) -> bool:
        """Return whether there are uploads that are neither completed nor aborted."""
        with urllib.request.urlopen(f"{self.url}/outputs?uploads") as answer:
            return b"<Upload>" in answer.read()


@contextmanager
def serving() -> Iterator[S3]:
    """Serve a bucket called ``outputs`` until the end."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)

    def app(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"].removeprefix("/outputs").strip("/")
        asked = environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", "")
        it.asked.append(asked)
        if it.careless:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if answer := it.before(asked):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            try:
                return moto(environ, start)
            except (KeyError, ValueError):  # of a part that comes when its upload was aborted
                answer = "404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>"
        status, body = answer
        data = body.encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))])
        return [data]

    server = make_server("127.0.0.1", 0, app, threaded=True)
    it = S3(f"http://127.0.0.1:{server.port}")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    urllib.request.urlopen(urllib.request.Request(f"{it.url}/outputs", method="PUT")).close()
    yield it
    server.shutdown()
