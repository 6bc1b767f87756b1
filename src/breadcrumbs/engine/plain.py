"""Plain data as JSON and back, to the bit: numbers, texts, arrays, and collections of them.

Dataclasses come back by their names; nothing else of a program does, so that what is read makes
values and calls nothing.
"""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def to_json(value: Any, arrays: list[np.ndarray] | None = None) -> Any:
    """Return what `of_json` makes the value from; TypeError for what is no plain data.

    arrays: to be filled with the arrays, instead of writing them as text.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [to_json(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [to_json(item, arrays) for item in value]}
    if type(value) is dict:
        pairs = value.items()
        return {"dict": [[to_json(key, arrays), to_json(item, arrays)] for key, item in pairs]}
    if type(value) is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"an array of {array.dtype}")
        if arrays is not None:
            arrays.append(array)
            data: Any = len(arrays) - 1
        else:
            data = base64.b85encode(zlib.compress(array.tobytes(), 1)).decode()
        it = {"array": data, "dtype": array.dtype.str, "shape": list(array.shape)}
        return it if isinstance(value, np.ndarray) else {**it, "scalar": True}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        if not all(field.init for field in fields(value)):
            raise TypeError(f"a {kind.__name__}, some of whose fields are not given")
        mine = {field.name: to_json(getattr(value, field.name), arrays) for field in fields(value)}
        return {"made": f"{kind.__module__}:{kind.__qualname__}", "fields": mine}
    raise TypeError(f"a {type(value).__name__}")


def of_json(data: Any, arrays: Sequence[bytes | memoryview] = ()) -> Any:
    """Return the value that `to_json` has described; ValueError for what it did not make.

    arrays: the bytes of those that were not written as text.
    """
    if isinstance(data, list):
        return [of_json(item, arrays) for item in data]
    if not isinstance(data, dict):
        return data
    try:
        return _made(data, arrays)
    except (LookupError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(str(error)) from None


def _made(data: dict[str, Any], arrays: Sequence[bytes | memoryview]) -> Any:
    if "tuple" in data:
        return tuple(of_json(item, arrays) for item in data["tuple"])
    if "dict" in data:
        return {of_json(key, arrays): of_json(item, arrays) for key, item in data["dict"]}
    if "array" in data:
        apart = isinstance(data["array"], int)
        raw = arrays[data["array"]] if apart else zlib.decompress(base64.b85decode(data["array"]))
        array = np.frombuffer(bytearray(raw), data["dtype"]).reshape(data["shape"])
        return array[()] if data.get("scalar") else array
    module, _, name = data["made"].partition(":")
    kind: Any = sys.modules[module]
    for part in name.split("."):
        kind = getattr(kind, part)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(f"{name} is not a dataclass")
    given = data["fields"]
    if given.keys() != {field.name for field in fields(kind)}:
        raise ValueError(f"{name} has other fields")
    return kind(**{key: of_json(item, arrays) for key, item in given.items()})
