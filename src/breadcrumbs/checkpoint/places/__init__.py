"""Models that lie elsewhere: what a URL says, before anything is asked of a server.

    s3://bucket/path      gs://bucket/path      az://container/path
    https://host/path     hf://org/name         hf://org/name@revision

A URL names a folder, or a ``.safetensors`` file. It has no user, password or query, since URLs go
into recipes, cards and headers: credentials are for the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from breadcrumbs.errors import CheckpointError, OutputError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9.-]+)://(?P<rest>.*)", re.DOTALL)
SCHEMES = ("s3", "gs", "az", "https", "http", "hf")
#: Those of them that models are written to.
WRITTEN = ("s3", "gs", "az")
#: Where a URL begins that follows another name, of an adapter or a part of a stack.
_NEXT = re.compile(r"\s*\+\s*(?=[A-Za-z][A-Za-z0-9.-]+://)")
#: As a path, which has one slash where there are two.
_OUTPUT = re.compile(rf"({'|'.join(SCHEMES)}):/")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>\w[\w./-]*))?/?")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Where a model lies. root: bucket, host with port, or repository; path: within it."""

    scheme: str
    root: str
    path: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        if self.scheme == "hf":
            return f"hf://{self.root}" + (f"@{self.revision}" if self.revision else "")
        path = quote(self.path) if self.scheme.startswith("http") else self.path
        return f"{self.scheme}://{self.root}" + (f"/{path}" if path else "")

    @property
    def name(self) -> str:
        """The last part of it."""
        return (self.path or self.root).rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        """Whether it names a file of weights, and no folder."""
        return self.path.endswith(".safetensors")


def is_url(text: str) -> bool:
    """Whether a text is a URL, of whatever scheme, and cannot be a path."""
    return _URL.match(text) is not None


def parsed(text: str) -> Address:
    """Return what a URL says; CheckpointError, which keeps secrets, for what is not understood."""
    found = _URL.fullmatch(text)
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in SCHEMES:
        raise CheckpointError(
            f"{plain(text)}: is no place for models. Give a path, or a URL of"
            f" {', '.join(f'{one}://' for one in SCHEMES if one != 'http')}."
        )
    check(text)
    if scheme == "hf":
        hub = _HUB.fullmatch(found["rest"])
        if hub is None:
            raise CheckpointError(f"{text}: is not hf://org/name or hf://org/name@revision.")
        return Address(scheme, hub["repo"], "", hub["revision"])
    root, _, path = found["rest"].partition("/")
    path = "/".join(part for part in path.split("/") if part)
    if scheme.startswith("http"):
        path = unquote(path)
    if not root or ".." in path.split("/"):
        raise CheckpointError(f"{text}: names no bucket or host, or goes up. Give a whole URL.")
    if scheme == "http" and urlsplit(text).hostname not in _LOOPBACK:
        raise CheckpointError(f"{text}: is not encrypted on its way. Give https://.")
    return Address(scheme, root, path)


def check(text: str) -> None:
    """Raise CheckpointError, which does not repeat them, for a URL with secrets in it."""
    for url in _NEXT.split(text):
        if plain(url) == url:
            continue
        raise CheckpointError(
            f"{plain(url)}: a URL with a user, a password or a query (as signed URLs have) is not"
            " taken, since recipes name their models. Give it without, and credentials in the"
            " environment (docs/remote.md)."
        )


def plain(text: str) -> str:
    """Return a URL without user, password, query and fragment."""
    found = _URL.fullmatch(text)
    if found is None:
        return text
    rest = re.split(r"[?#]", found["rest"], maxsplit=1)[0]
    root, slash, path = rest.partition("/")
    return f"{found['scheme']}://{root.rpartition('@')[2]}{slash}{path}"


def is_output(text: str) -> bool:
    """Whether an output is a URL; also one that was given as a path, and so lost a slash."""
    return _OUTPUT.match(text) is not None or is_url(text)


def output(text: str) -> Address:
    """Return where a model is to be written; OutputError where nothing can be."""
    try:
        address = parsed(re.sub(r":/+", "://", text, count=1))
    except CheckpointError as error:
        raise OutputError(str(error)) from None
    if address.scheme == "hf":
        raise OutputError(
            f"{address}: is not written to. Give -o FOLDER and --push-to-hub {address.root}."
        )
    if address.scheme not in WRITTEN:
        raise OutputError(
            f"{address}: web servers are read from, and not written to. Give a folder, or a URL of"
            f" {', '.join(f'{one}://' for one in WRITTEN)}."
        )
    if not address.path:
        raise OutputError(
            f"{address}: is a bucket. Give the name of a folder in it, {address}/NAME."
        )
    return address


def refuse_output(text: str) -> None:
    """Raise OutputError for an output that is a URL: `merge` alone writes to them."""
    if is_output(text):
        raise OutputError(
            f"{plain(text)}: models are read from URLs, and what this makes is not written to them."
            " Give a folder, and copy it there when it is whole."
        )
