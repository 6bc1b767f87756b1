"""Who makes a revision of a store, and what they say of it."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from breadcrumbs.errors import StoreError
from breadcrumbs.store.ledger import By

#: Characters of an author and a message.
_LONGEST = 200, 2000


def by(folder: Path, author: str | None, message: str) -> By:
    """Return an author and a message that can be kept; StoreError for others.

    author: None for the one of `default`.
    """
    author = default(folder) if author is None else author
    for what, text, most in zip(("author", "message"), (author, message), _LONGEST, strict=True):
        if len(text) > most or not text.isprintable():
            raise StoreError(f"{what}: give one line of up to {most} printable characters.")
    return By(author.strip(), message.strip())


def default(folder: Path) -> str:
    """Return the name that git knows its user by in a folder, or else that of the login."""
    try:
        ran = subprocess.run(
            ["git", "config", "user.name"], cwd=folder, capture_output=True, timeout=10
        )
        name = ran.stdout.decode(errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        name = ""
    if name and name.isprintable() and len(name) <= _LONGEST[0]:
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        return ""
