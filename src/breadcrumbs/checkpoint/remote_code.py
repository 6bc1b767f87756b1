"""The Python files that a model's own configs name, which libraries import from beside the weights.

    config.json             {"auto_map": {"AutoModel": "modeling_x.XModel"}}
    tokenizer_config.json   {"auto_map": {"AutoTokenizer": ["tokenization_x.X", null]}}
    modules.json            [{"type": "custom_st.Transformer", ...}]
    model_index.json        {"_class_name": ["pipeline", "MyPipeline"], "unet": ["my_unet", "UNet"]}

and what these files import from the same folder, ``from .configuration_x import X``. A reference
into another repository, ``org/name--modeling_x.XModel``, names no file here. Nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

_IMPORTS = re.compile(r"^\s*(?:from\s+\.([\w.]+)\s+import\b|import\s+\.([\w.]+))", re.MULTILINE)
_SIBLINGS = re.compile(r"^\s*from\s+\.\s+import\s+(\([^)]*\)|[^\n#]*)", re.MULTILINE)
_CONFIG = re.compile(r"(^|_)(config|processor)\.json$")


def is_config(name: str) -> bool:
    """Whether a file may have an `auto_map`."""
    return bool(_CONFIG.search(name))


def named(data: Any) -> Iterator[str]:
    """Yield the modules that a config names in an `auto_map`, its own or one of a config in it."""
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key == "auto_map" and isinstance(value, dict):
            for found in value.values():
                yield from _modules(found if isinstance(found, list) else [found])
        elif key.endswith("_config"):
            yield from named(value)


def _modules(references: Iterable[Any]) -> Iterator[str]:
    for reference in references:
        if isinstance(reference, str) and "--" not in reference and "." in reference:
            yield reference.rpartition(".")[0]


def of_modules(data: Any) -> Iterator[str]:
    """Yield the modules of the types that a `modules.json` names."""
    for entry in data if isinstance(data, list) else ():
        kind = entry.get("type") if isinstance(entry, dict) else None
        if isinstance(kind, str):
            yield from _modules([kind])


def files(
    seeds: Iterable[str], names: Collection[str], read: Callable[[str], bytes | None]
) -> list[str]:
    """Return which of the files ``names`` of a folder the modules ``seeds`` are, and import.

    read: the content of a file, None where there is none to be had.
    """
    found: dict[str, None] = {}
    waiting = list(seeds)
    while waiting:
        name = f"{waiting.pop()}.py"
        if name in found or name not in names:
            continue
        found[name] = None
        text = (read(name) or b"").decode("utf-8", errors="replace")
        for one, other in _IMPORTS.findall(text):
            waiting.append((one or other).split(".")[0])
        for listed in _SIBLINGS.findall(text):
            waiting += [
                part.split()[0] for part in listed.strip("() \n").split(",") if part.split()
            ]
    return list(found)
