"""What a task file says of itself: JSON under one key of the metadata of a safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.safetensors import parse_json
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, WEIGHT_DTYPES, shown
from breadcrumbs.errors import CheckpointError, suggestion
from breadcrumbs.taskfile import KEY

HASH = "breadcrumbs.task.hash"
VERSION = 1
#: Columns of the table of blocks: entries kept, code and bytes of their positions, code and bytes
#: of their values, and a digest of these bytes.
COLUMNS = 9
_HASH = re.compile(r"[0-9a-f]{64}")
_INT64 = 2**63 - 1
#: Above any error or scale.
_MOST = 1e300


@dataclass(frozen=True)
class BaseReference:
    """The base of a task. name: what it was called. revision: of the hub, if it came from there.

    hash: `hashing.model_hash`, which knows all of its weights.
    """

    name: str
    revision: str | None
    hash: str


@dataclass(frozen=True)
class TaskTensor:
    """A tensor of which something is kept. dtype: of the values, a safetensors name.

    share: of the squared norm of the whole task vector, what the entries kept have.
    rank: of the two matrices whose product, times ``scale``, stands for all of it; 0 if blocks do.
    digest: of the bytes of the two, as text. stack: how many matrices the tensor is a stack of, of
    which each is such a product. exact: whether its values are as they are, whatever the encoding
    of the others: statistics and buffers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kept: int
    rank: int = 0
    scale: float = 1.0
    digest: str = ""
    share: float = 1.0
    stack: int = 1
    exact: bool = False

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def is_weight(self) -> bool:
        """Whether it is trained, as `checkpoint.tensors.Tensor.is_weight`."""
        return kinds.of(self.name, self.shape, self.dtype in WEIGHT_DTYPES) == kinds.WEIGHT

    @property
    def blocks(self) -> int:
        """Number of its blocks."""
        return -(-self.size // BLOCK)

    def entries(self, block: int) -> int:
        """Return how many entries a block has."""
        return min(BLOCK, self.size - block * BLOCK)


@dataclass(frozen=True)
class About:
    """What a task file says of itself.

    transform, parameters, seed: what decided which entries are kept, as a recipe has it. weights:
    how many the base has. author, license: as given, or empty. tensors: by name. error: of an
    encoding that is not lossless, ``relative`` (the norm of what is lost of the kept task vector,
    divided by its norm) and ``largest`` (of the differences of weights). tied: by the name of a
    copy in the base, that of the tensor here that it is one with. untied: names of tensors that are
    apart in this task, by name what the base ties them to.
    """

    name: str
    base: BaseReference
    transform: str
    parameters: Mapping[str, Any]
    seed: int
    encoding: str
    weights: int
    tensors: Mapping[str, TaskTensor] = field(default_factory=dict)
    author: str = ""
    license: str = ""
    made_by: str = ""
    error: Mapping[str, float] | None = None
    untied: Mapping[str, str] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """How many weights are kept, other tensors not counted."""
        return sum(tensor.kept for tensor in self.tensors.values() if tensor.is_weight)

    @property
    def density(self) -> float:
        """The share of the base's weights that is kept."""
        return self.kept / self.weights if self.weights else 0.0

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        tensors = {t.name: _mapping(t) for t in self.tensors.values()}
        base = {"name": self.base.name, "revision": self.base.revision, "hash": self.base.hash}
        mine = {key: getattr(self, key) for key in _KINDS if key not in ("base", "tensors")}
        more = {"tied": dict(self.tied)} if self.tied else {}
        more |= {"untied": dict(self.untied)} if self.untied else {}
        return {"version": VERSION, **mine, "base": base, **more, "tensors": tensors}


def _mapping(tensor: TaskTensor) -> dict[str, Any]:
    found: dict[str, Any] = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    found |= {"kept": tensor.kept} | ({"share": tensor.share} if tensor.share != 1 else {})
    found |= {"exact": True} if tensor.exact else {}
    factors = {"rank": tensor.rank, "scale": tensor.scale, "digest": tensor.digest}
    factors |= {"stack": tensor.stack} if tensor.stack > 1 else {}
    return found | factors if tensor.rank else found


def text(said: About) -> str:
    """Return what is written under `KEY`."""
    return json.dumps(said.to_mapping(), separators=(",", ":"))


def digest(text: str, tables: Mapping[str, bytes]) -> str:
    """Return the hash of a task: of what it says, and of its tables of blocks by tensor.

    These hold digests of all blocks, so nothing can change without it.
    """
    hasher = blake3(text.encode(errors="replace"))
    for name in sorted(tables):
        hasher.update(tables[name])
    return hasher.hexdigest()


_KINDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "base": (dict,),
    "transform": (str,),
    "parameters": (dict,),
    "seed": (int,),
    "encoding": (str,),
    "weights": (int,),
    "author": (str,),
    "license": (str,),
    "made_by": (str,),
    "error": (dict, type(None)),
    "tensors": (dict,),
}
_OF_ERROR = {"relative": (int, float), "largest": (int, float)}
_OF_TENSOR = {"dtype": (str,), "shape": (list,), "kept": (int,)}
_OF_CUT = {"share": (int, float)}
_OF_FACTORS = {"rank": (int,), "scale": (int, float), "digest": (str,)}


def parse(text: str, where: str) -> About:
    """Return what the ``text`` under `KEY` says; CheckpointError if that is not all it must."""
    data = parse_json(text.encode(errors="replace"), f"{where}: its metadata {KEY!r}")
    version = data.get("version")
    if version != VERSION or isinstance(version, bool):
        raise CheckpointError(
            f"{where}: is a task file of version {shown(version)}; this program reads version"
            f" {VERSION}. Update Breadcrumbs, or pack the task again."
        )
    mine: dict[str, Any] = {key: value for key, value in data.items() if key != "version"}
    optional = {key: (dict,) for key in ("tied", "untied") if key in mine}
    _check_kinds(mine, _KINDS | optional, where)
    untied = mine.get("untied", {})
    if not all(isinstance(other, str) and other != name for name, other in untied.items()):
        raise CheckpointError(f"{where}: says {shown(untied)} for 'untied'.")
    base = mine["base"]
    _check_kinds(base, {"name": (str,), "revision": (str, type(None)), "hash": (str,)}, where)
    if not _HASH.fullmatch(base["hash"]):
        raise CheckpointError(f"{where}: the hash of its base is {shown(base['hash'])}.")
    tensors = {name: _tensor(name, value, where) for name, value in mine["tensors"].items()}
    for name, other in mine.get("tied", {}).items():
        if name in tensors or not isinstance(other, str) or other not in tensors:
            raise CheckpointError(f"{where}: says that {shown(name)} is a copy of {shown(other)}.")
    if mine["error"] is not None:
        _check_kinds(mine["error"], _OF_ERROR, where)
        for value in mine["error"].values():
            if not 0 <= value < _MOST:
                raise CheckpointError(f"{where}: says an error of {shown(value)}.")
    if mine["weights"] < 0 or mine["seed"] < 0:
        raise CheckpointError(f"{where}: says a negative number of weights or seed.")
    return About(**{**mine, "base": BaseReference(**base), "tensors": tensors})


def _check_kinds(
    data: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str
) -> None:
    """Raise CheckpointError unless the data have exactly these keys, with values of these kinds."""
    for key in data:
        if key not in kinds:
            raise CheckpointError(
                f"{where}: says the unknown {shown(key)}.{suggestion(key, kinds)} Was it written"
                " by a newer version?"
            )
    for key, kind in kinds.items():
        if key not in data:
            raise CheckpointError(
                f"{where}: does not say its {key!r}. It is not a whole task file."
            )
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise CheckpointError(f"{where}: says {shown(data[key])} for {key!r}.")


def _tensor(name: str, data: Any, where: str) -> TaskTensor:
    where = f"{where}: tensor {shown(name)}"
    if not isinstance(data, dict):
        raise CheckpointError(f"{where} is described by {shown(data)}.")
    more = (_OF_FACTORS if "rank" in data else {}) | (_OF_CUT if "share" in data else {})
    more |= {"stack": (int,)} if "rank" in data and "stack" in data else {}
    exact = data.get("exact", False)
    if not isinstance(exact, bool):
        raise CheckpointError(f"{where} says {shown(exact)} for 'exact'.")
    data = {key: value for key, value in data.items() if key != "exact"}
    _check_kinds(data, _OF_TENSOR | more, where)
    dtype, shape, kept = data["dtype"], data["shape"], data["kept"]
    if dtype not in DTYPES:
        raise CheckpointError(f"{where} has dtype {shown(dtype)}, which is not supported.")
    if len(shape) > 64 or not all(type(n) is int and 0 <= n <= _INT64 for n in shape):
        raise CheckpointError(f"{where} has shape {shown(shape)}.")
    factors = {key: data[key] for key in (*_OF_FACTORS, "stack") if key in data}
    share = data.get("share", 1.0)
    tensor = TaskTensor(name, dtype, tuple(shape), kept, **factors, share=share, exact=exact)
    if tensor.size > _INT64 // 8 or not 0 <= kept <= tensor.size:
        raise CheckpointError(f"{where} says that it keeps {kept} of {shown(tensor.size)} entries.")
    if not 0 <= share <= 1:
        raise CheckpointError(f"{where} says that it keeps a share of {shown(share)}.")
    if factors and not _is_product(tensor):
        raise CheckpointError(
            f"{where} says that it is a product of rank {shown(tensor.rank)}, scale"
            f" {shown(tensor.scale)}, hash {shown(tensor.digest)}."
        )
    return tensor


def _is_product(tensor: TaskTensor) -> bool:
    """Return whether the tensor may be a product of two matrices."""
    return (
        tensor.dtype in WEIGHT_DTYPES
        and len(tensor.shape) > 1
        and 0 < tensor.kept == tensor.size
        and tensor.rank > 0
        and (tensor.stack == 1 or (len(tensor.shape) > 2 and 1 < tensor.stack == tensor.shape[0]))
        and abs(tensor.scale) < _MOST  # an integer may be too large for math.isfinite
        and bool(_HASH.fullmatch(tensor.digest))
    )
