"""SpamAssassin's public corpus: what a mail says, and whether it was wanted."""

from __future__ import annotations

import email
import html
import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

from experiments.suites.splits import Example


def spam(folder: Path) -> Iterator[Example]:
    """Yield the openings of mails, ``spam`` or ``ham``; the group is the subject."""
    for path in sorted((folder / "package/data").glob("*/*.txt")):
        message = email.message_from_bytes(path.read_bytes())
        text = body(message)
        if len(text.split()) >= 5:
            subject = re.sub(r"(?i)\b(re|fwd?)\s*:", " ", str(message.get("subject", "")))
            thread = " ".join(re.findall(r"\w+", subject.casefold()))
            yield Example(text, "spam" if path.parent.name.startswith("spam") else "ham", thread)


def body(message: Message) -> str:
    """Return the text of a mail: no header, no markup, no quoted line, no mail address."""
    for part in message.walk():
        if part.get_content_type() in ("text/plain", "text/html"):
            content = part.get_payload(decode=True)
            text = content.decode("latin-1") if isinstance(content, bytes) else ""
            if part.get_content_type() == "text/html" or "<html" in text.lower():
                text = re.sub(r"(?is)<(style|script|title).*?</\1>|<!--.*?-->", " ", text)
                text = html.unescape(re.sub(r"<[^>]*>", " ", text))
            lines = (line for line in text.splitlines() if not re.match(r"\s*[>|]", line))
            lines = (line for line in lines if not re.search(r"(wrote|writes|said):\s*$", line))
            text = re.sub(r"\S+@\S+", "address", " ".join(lines))
            if text.split():
                return text
    return ""
