"""YAML that others wrote, read so that no text of it can take long or much memory.

A few hundred bytes of aliases of aliases stand for more values than a memory holds; brackets nest
deeper than Python can follow; a number of a million digits takes minutes. So a text is looked
through first, event by event: how long it is, how deep it nests, and how many values there are when
every alias is replaced by what it stands for. Then it is read by YAML's safe loader. All YAML that
this program reads is read here.
"""

from __future__ import annotations

import functools
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 10 << 20
DEEPEST = 100
#: Digits of a number, the point and the exponent among them.
_DIGITS = 100


class YAMLRefused(ValueError):
    """A text is no YAML, or more than may be. line: where, 0 if that cannot be said."""

    def __init__(self, why: str, line: int = 0):
        super().__init__(why)
        self.line = line


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Return the text of a file; OSError or UnicodeDecodeError where there is none.

    YAMLRefused for one that is too large, or no regular file.
    """
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise YAMLRefused("it is not a regular file")
        data = file.read(largest + 1)
    if len(data) > largest:
        raise YAMLRefused(f"it has more than {largest:,} bytes")
    return data.decode().replace("\r\n", "\n")


def load(text: str, most: int = 500_000) -> Any:
    """Return the plain data that a text stands for. most: values, aliases replaced. YAMLRefused."""
    return _guarded(text, most, lambda loader: loader.get_single_data())


def compose(text: str, most: int = 500_000) -> tuple[Any, Any]:
    """Return the nodes of a text, and a loader that constructs scalars of them. YAMLRefused."""
    return _guarded(text, most, lambda loader: (loader.get_single_node(), loader))


def compose_all(text: str, most: int = 500_000) -> tuple[list[Any], Any]:
    """Return the nodes of all documents of a text, and a loader as `compose` does. YAMLRefused."""

    def nodes(loader: Any) -> tuple[list[Any], Any]:
        found = []
        while loader.check_node():
            found.append(loader.get_node())
        return found, loader

    return _guarded(text, most, nodes)


def _guarded(text: str, most: int, then: Any) -> Any:
    import yaml

    try:
        _look_through(text, most)
        return then(_loader()(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = " ".join(str(error.problem or error.context).split())
        raise YAMLRefused(why, mark.line + 1 if mark else 0) from None
    except YAMLRefused:
        raise
    except Exception as error:  # the YAML library's constructors raise all kinds
        raise YAMLRefused(" ".join(str(error).split()) or type(error).__name__) from None


@dataclass
class _Open:
    """A list or mapping that has begun. before: values counted by then."""

    anchor: str | None
    before: int


def _look_through(text: str, most: int) -> None:
    """Raise YAMLRefused for a text of more values, or that nests deeper, than may be."""
    import yaml

    sizes: dict[str, int | None] = {}  # None: under way, so that an alias would be endless
    above: list[_Open] = []
    count = 0
    for event in yaml.parse(text, Loader=_parser()):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
            if size is None:
                raise YAMLRefused(f"the alias *{event.anchor} is within what it stands for", line)
            count += size
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                above.append(_Open(event.anchor, count - 1))
                if event.anchor:
                    sizes[event.anchor] = None
                if len(above) > DEEPEST:
                    raise YAMLRefused(f"it nests deeper than {DEEPEST} levels", line)
            elif event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = above.pop()
            if ended.anchor:
                sizes[ended.anchor] = count - ended.before
        if count > most:
            raise YAMLRefused(f"it stands for more than {most:,} values", line)


@functools.cache
def _parser() -> type:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def _loader() -> type:
    """Return YAML's safe loader, with duplicate keys and endless numbers refused."""
    import yaml

    class Loader(_parser()):
        pass

    def refuse(why: str, node: Any) -> None:
        raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            refuse("a mapping is none", node)
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, list | dict | set):
                refuse("a key is a list or mapping", key_node)
            if key in result:
                refuse(f"the key {key!r} appears twice", key_node)
            result[key] = loader.construct_object(value_node, deep=True)
        return result

    def number(construct: Any) -> Any:
        def made(loader: Any, node: Any) -> Any:
            if len(node.value) > _DIGITS:
                refuse(f"a number has {len(node.value):,} digits", node)
            return construct(loader, node)

        return made

    safe = yaml.constructor.SafeConstructor
    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    Loader.add_constructor("tag:yaml.org,2002:int", number(safe.construct_yaml_int))
    Loader.add_constructor("tag:yaml.org,2002:float", number(safe.construct_yaml_float))
    return Loader


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe would wait
