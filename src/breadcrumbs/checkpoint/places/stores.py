"""Files elsewhere, listed and read by range through `obstore`, with what is done when that fails.

Every request of a file asks for the one that was seen first (``If-Match``), so that nothing is
mixed of two. What may pass (5xx, 429, a cut connection) is tried again after a while, longer each
time; what will not (no such file, no right to it) is an error at once, that says what to set.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.checkpoint.mirrors import Identity
from breadcrumbs.checkpoint.places import Address
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MissingExtraError, install

#: In a folder into which a model is uploaded, until it is whole (`places.outputs`).
CLAIM = ".breadcrumbs-upload"
#: Seconds between two tries at most.
LONGEST = 10.0
_STATUS = re.compile(r"status code: (\d{3})")
_MOST = 10_000
_KINDS = {
    "UnauthenticatedError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "FileNotFoundError": 404,
    "PreconditionError": 412,
}
#: What may be better the next time, by the status if there is one.
_PASSING = ("GenericError", "JoinError", "_Cut")
_SET = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) to ones that are"
    " valid now, or AWS_SKIP_SIGNATURE=true where the bucket is public; and AWS_REGION",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true where the bucket is"
    " public",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or"
    " AZURE_STORAGE_SAS_TOKEN, or AZURE_SKIP_SIGNATURE=true where the container is public",
    "hf": "Set HF_TOKEN to a token that may read it, and accept the terms of a gated model",
    "https": "No credentials are sent to web servers. Give a URL that is open to you",
}
T = TypeVar("T")
S = TypeVar("S", bound="Store")


@dataclass(frozen=True)
class Found:
    """A file that is there: its bytes, and what tells it from another one."""

    size: int
    identity: Identity = field(default_factory=Identity)


class Store:
    """A bucket, host or repository. url: of an object in it, by its path."""

    def __init__(self, scheme: str, store: Any, url: Callable[[str], str]):
        self.scheme, self.store, self.url = scheme, store, url

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Return settings of the client: that it never tries again, since `_tried` does."""
        return {"retry_config": {"max_retries": 0}}

    def listed(self, folder: str) -> dict[str, Found]:
        """Return all files in a folder and its subfolders, by their paths in it."""
        import obstore

        def ask() -> dict[str, Found]:
            start = f"{folder}/" if folder else ""
            found: dict[str, Found] = {}
            for some in obstore.list(self.store, prefix=folder or None):
                for meta in some:
                    if meta["path"].startswith(start):
                        found[meta["path"][len(start) :]] = found_of(meta)
                if len(found) > _MOST:
                    raise CheckpointError(
                        f"{self.url(folder)}: holds more than {_MOST} files. Give the folder of one"
                        " model."
                    )
            return found

        return self._tried(folder, ask)

    def head(self, path: str) -> Found:
        """Return what is known of a file; CheckpointError if it is not there."""
        import obstore

        return self._tried(path, lambda: found_of(obstore.head(self.store, path)))

    def read(self, path: str, found: Found | None = None) -> tuple[bytes, Found]:
        """Return the bytes of a whole file, which was ``found``, and what is known of it."""
        import obstore

        def ask() -> tuple[bytes, Found]:
            got = obstore.get(self.store, path, options=self._options(found))
            now = found_of(got.meta)
            return bytes(got.bytes()), now

        return self._tried(path, ask)

    def fetch(
        self, path: str, found: Found, start: int, stop: int, put: Callable[[int, bytes], None]
    ) -> None:
        """Hand over bytes ``start`` to ``stop`` of the file that was ``found``, piece by piece.

        After a cut, what is lacking is asked for alone.
        """
        import obstore

        at = start

        def ask() -> None:
            nonlocal at
            options: Any = {**self._options(found), "range": (at, stop)}
            got: Any = obstore.get(self.store, path, options=options)
            if got.meta["size"] != found.size or tuple(got.range) != (at, stop):
                raise CheckpointError(_changed(self.url(path)))
            for piece in got.stream(min_chunk_size=mirrors.sizes().piece):
                data = bytes(piece)[: stop - at]
                put(at, data)
                at += len(data)
            if at < stop:
                raise _Cut

        self._tried(path, ask)

    def _options(self, found: Found | None) -> Any:
        if found is None or found.identity.kind != "etag":
            return {}
        version = found.identity.version
        options = {"if_match": found.identity.value}
        return {**options, "version": version} if version else options

    def _tried(self, path: str, ask: Callable[[], T]) -> T:
        """Return what ``ask`` does, tried again where that may help; else CheckpointError."""
        most, wait = mirrors.sizes().tries, mirrors.sizes().wait
        for tries in range(1, most + 1):
            try:
                return ask()
            except CheckpointError:
                raise
            except Exception as error:  # of obstore, by kind and status
                status = status_of(error)
                passing = status is None or status >= 500 or status in (408, 429)
                passing &= isinstance(error, OSError) or type(error).__name__ in _PASSING
                if not passing or tries == most or hopeless(error):
                    raise self._explained(path, error, status, tries) from None
            time.sleep(wait * random.uniform(0.7, 1.3))
            wait = min(LONGEST, 2 * wait)
        raise AssertionError

    def _explained(
        self, path: str, error: Exception, status: int | None, tries: int
    ) -> BreadcrumbsError:
        url, what = self.url(path), _SET.get(self.scheme, _SET["https"])
        text = str(error)
        if status == 404:
            return NotThereError(f"{url}: is not there. Check the name. {what}.")
        if status == 412:
            return CheckpointError(_changed(url))
        if status in (401, 403) or re.search(r"Expired|InvalidAccessKey|InvalidToken", text):
            return CheckpointError(f"{url}: is refused ({status}). {what}.")
        if hopeless(error) and "169.254." in text:
            return CheckpointError(f"{url}: there are no credentials to ask with. {what}.")
        if type(error).__name__ == "NotSupportedError":
            return CheckpointError(
                f"{url}: its server does not give parts of a file. Download it, and give the path."
            )
        said = f"its server said {status}" if status else short(text)
        again = f", {tries} times" if tries > 1 else ""
        return CheckpointError(f"{url}: could not be read: {said}{again}. Run this again later.")


class NotThereError(CheckpointError):
    """There is no such file."""


class _Cut(Exception):
    """The connection ended before all was there."""


def store(address: Address, commit: str = "", kind: type[S] = Store) -> S:
    """Return where the files of an address are asked for. commit: of a repository of a hub."""
    try:
        from obstore import store as stores
    except ImportError:
        raise MissingExtraError(
            f"{address}: models elsewhere are read by obstore, which is not installed."
            f" {install('remote')}"
        ) from None
    settings: dict[str, Any] = kind.settings()
    root = f"{address.scheme}://{address.root}"
    try:
        if address.scheme == "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", ""))
            if endpoint.startswith("http://"):
                settings.setdefault("client_options", {})["allow_http"] = True
            made: Any = stores.S3Store(address.root, **settings)
        elif address.scheme == "gs":
            made = stores.GCSStore(address.root, **settings)
        elif address.scheme == "az":
            made = stores.AzureStore(address.root, **settings)
        elif address.scheme == "hf":
            return _hub(address, commit, settings, kind)
        else:
            options: Any = {"allow_http": address.scheme == "http"}
            made = stores.HTTPStore(root, client_options=options, **settings)
    except Exception as error:  # settings of the environment that it does not understand
        advice = _SET.get(address.scheme, _SET["https"])
        raise CheckpointError(f"{address}: {short(str(error))}. {advice}.") from None
    return kind(address.scheme, made, lambda path: str(replace(address, path=path)))


def _hub(address: Address, commit: str, settings: dict[str, Any], kind: type[S]) -> S:
    from huggingface_hub import constants, get_token
    from obstore.store import HTTPStore

    endpoint, token = constants.ENDPOINT, get_token()
    options: Any = {"allow_http": endpoint.startswith("http://")}
    if token:  # which the client leaves out where it is sent on to another host
        options["default_headers"] = {"Authorization": f"Bearer {token}"}
    url = f"{endpoint}/{address.root}/resolve/{commit}"
    made = HTTPStore(url, client_options=options, **settings)
    return kind("hf", made, lambda path: f"hf://{address.root}@{commit}/{path}")


def found_of(meta: Any) -> Found:
    """Return what a server says of a file."""
    tag = meta["e_tag"] or ""
    if not tag or tag.startswith("W/"):  # weak: says nothing of bytes, and never matches
        return Found(meta["size"])
    return Found(meta["size"], Identity("etag", tag, meta["version"] or ""))


def status_of(error: Exception) -> int | None:
    """Return the status of an answer that `obstore` raised; None if there was none."""
    found = _STATUS.search(str(error))
    status = int(found[1]) if found else _KINDS.get(type(error).__name__)
    return 301 if status is None and "redirect without LOCATION" in str(error) else status


def hopeless(error: Exception) -> bool:
    """Whether an error will be the same the next time, though it has no status that says so."""
    text = str(error)
    return "169.254." in text or type(error).__name__ in ("NotSupportedError", "InvalidPathError")


def short(text: str) -> str:
    """Return the first line of what a client says, without queries of URLs, which may be signed."""
    line = text.strip().splitlines()[0] if text.strip() else "the connection was cut"
    return re.sub(r"\?[^\s)\"']*", "", line)[:200]


def _changed(url: str) -> str:
    return (
        f"{url}: changed while it was being merged. Make sure that nothing writes to the inputs,"
        " and merge again."
    )
