"""The chat templates in a model's folder: the Jinja texts by which it writes a conversation.

Looked for as transformers 5 does when it loads a tokenizer: the files ``chat_template.jinja`` and
``additional_chat_templates/NAME.jinja``; where there is none, ``tokenizer_config.json``. Older
processors kept theirs in ``chat_template.json``, which a tokenizer never reads: it comes last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import configs
from breadcrumbs.checkpoint.parts import TEMPLATES
from breadcrumbs.errors import CheckpointError

FILE, CONFIG, OLD = "chat_template.jinja", "tokenizer_config.json", "chat_template.json"
#: The one that is used unless another is asked for.
DEFAULT = "default"
_LARGEST = 1 << 20


def of_folder(folder: Path | None) -> dict[str, str]:
    """Return the chat templates of the model in a folder by name; most have `DEFAULT` alone.

    CheckpointError for a file that cannot be read as text.
    """
    if folder is None:
        return {}
    paths = {DEFAULT: folder / FILE}
    paths |= {path.stem: path for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    texts = {name: text(path) for name, path in paths.items() if configs.size(path) >= 0}
    for name in (CONFIG, OLD):
        texts = {key: found for key, found in texts.items() if found}
        texts = texts or _named(configs.read(folder, name).get("chat_template"))
    return texts


def _named(said: Any) -> dict[str, str]:
    """Return the templates of a config by name: it has one, a list of named ones, or a mapping."""
    if isinstance(said, str) and said:
        return {DEFAULT: said}
    if isinstance(said, list):
        rows = [row for row in said if isinstance(row, dict)]
        said = {row.get("name"): row.get("template") for row in rows}
    pairs = said.items() if isinstance(said, dict) else ()
    return {str(name): found for name, found in pairs if isinstance(found, str) and found}


def text(path: Path) -> str:
    """Return the text of a file; CheckpointError where it is none."""
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as text ({error}).") from None
