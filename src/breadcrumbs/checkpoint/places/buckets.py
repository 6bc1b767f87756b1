"""A bucket that is written to through `obstore`, with what is said when that fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.checkpoint.places import stores
from breadcrumbs.checkpoint.places.stores import Found, NotThereError, Store
from breadcrumbs.errors import BreadcrumbsError, OutputError

#: Parts of an upload at most, as a store takes 10,000, and those that are sent at one time.
_MOST, _AT_ONCE = 9_000, 8
#: For all of a part to be sent, which takes long on a slow line.
_PATIENCE = timedelta(minutes=10)
_ADVICE = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) to ones that are"
    " valid now and may write and delete there, and AWS_REGION",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS to ones that may write and delete there",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or"
    " AZURE_STORAGE_SAS_TOKEN that may write and delete there",
}
#: What is wrong with a server without conditions.
CARELESS = (
    "its server puts nothing under a condition (If-None-Match), so two merges could get mixed. Give"
    " a folder, and copy it there when it is whole."
)
T = TypeVar("T")


class Bucket(Store):
    """A bucket that is written to. What may pass is tried again by the client, part by part."""

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Return settings of the client: that it tries again, and has time for slow lines."""
        wait = timedelta(seconds=mirrors.sizes().wait)
        longest = min(timedelta(seconds=stores.LONGEST), 64 * wait)
        return {
            "retry_config": {
                "max_retries": mirrors.sizes().tries,
                "backoff": {"init_backoff": wait, "max_backoff": longest, "base": 2},
                "retry_timeout": 4 * _PATIENCE,
            },
            "client_options": {"timeout": _PATIENCE},
        }

    def put(self, path: str, file: Path, told: Callable[[int], None] = lambda nbytes: None) -> str:
        """Upload a file, in parts if it is large; return the tag of what is there then.

        told: is called with the bytes that are handed over. The parts of an upload that fails or is
        interrupted are removed, as far as the server can be reached.
        """
        import obstore

        size = file.stat().st_size
        least = mirrors.sizes().part
        part = max(least, -(-size // _MOST))

        def ask() -> str:
            if size <= least:
                done = obstore.put(self.store, path, file.read_bytes(), use_multipart=False)
                told(size)
            else:
                settings: Any = {"chunk_size": part, "max_concurrency": _AT_ONCE}
                done = obstore.put(self.store, path, _pieces(file, told), **settings)
            return done["e_tag"] or ""

        return self._tried(path, ask)

    def put_new(self, path: str, data: bytes) -> bool:
        """Put an object if there is none of its name; return whether that is what is there now."""
        return self._put_if(path, data, "create")

    def replace(self, path: str, data: bytes, found: Found) -> bool:
        """Put an object in the place of the one that was ``found``; return whether it was that."""
        it = found.identity
        return self._put_if(path, data, {"e_tag": it.value} | _version(it.version))

    def _put_if(self, path: str, data: bytes, mode: Any) -> bool:
        import obstore

        def ask() -> bool:
            try:
                obstore.put(self.store, path, data, mode=mode)
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError):
                # Put by a request whose answer was lost, or by another.
                return bytes(obstore.get(self.store, path).bytes()) == data
            return True

        return self._tried(path, ask)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        import obstore

        def ask(path: str) -> None:
            with suppress(FileNotFoundError):
                obstore.delete(self.store, [path])

        for path in paths:
            self._tried(path, lambda path=path: ask(path))

    def _tried(self, path: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BreadcrumbsError:
            raise
        except Exception as error:  # of obstore, by kind and status
            raise self._explained(path, error, stores.status_of(error), 1) from None

    def _explained(
        self, path: str, error: Exception, status: int | None, tries: int
    ) -> BreadcrumbsError:
        url, what, text = self.url(path), _ADVICE[self.scheme], str(error)
        if status == 404 and "NoSuchBucket" not in text:
            return NotThereError(f"{url}: is not there.")
        if status == 404:
            return OutputError(f"{url}: there is no such bucket. Make it, or check the name.")
        if status in (401, 403) or re.search(r"Expired|InvalidAccessKey|InvalidToken", text):
            return OutputError(f"{url}: may not be written ({status}). {what}.")
        if stores.hopeless(error) and "169.254." in text:
            return OutputError(f"{url}: there are no credentials to write with. {what}.")
        if status == 301:
            return OutputError(f"{url}: its bucket is in another region. Set AWS_REGION.")
        if status in (405, 501):
            return OutputError(f"{url}: {CARELESS}")
        said = f"its server said {status}" if status else stores.short(text)
        return OutputError(f"{url}: could not be written: {said}. Run this again later.")


def _version(version: str) -> dict[str, str]:
    return {"version": version} if version and version != "null" else {}


def _pieces(file: Path, told: Callable[[int], None]) -> Iterator[bytes]:
    with open(file, "rb") as data:
        while piece := data.read(mirrors.sizes().piece):
            yield piece
            told(len(piece))
