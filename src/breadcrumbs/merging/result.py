"""A merged model in memory: a dict of its tensors, which can be saved and uploaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from breadcrumbs.checkpoint import Weights, like, live, notebook
from breadcrumbs.checkpoint.memory import open_mapping
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import OutputError, counted, explained
from breadcrumbs.merging import publishing
from breadcrumbs.merging.report import Report

Array = TypeVar("Array", bound=Any)
#: Writes what a dict of tensors holds: (output, tensors, settings) -> the report of it.
Save = Callable[..., Report]


class Merged(dict[str, Array], Generic[Array]):
    """The tensors of a merged model by name. report: what the merge did.

    A dict like any other: `load_state_dict` takes it, and tensors may be changed.
    """

    report: Report
    _save: Save

    @classmethod
    def of(cls, tensors: Mapping[str, Array], report: Report, save: Save) -> Merged[Array]:
        """Return the tensors of a merge with its report. save: how they are written."""
        made = cls(tensors)
        made.report, made._save = report, save
        return made

    @explained
    def save(
        self,
        output: str | os.PathLike[str],
        *,
        force: bool = False,
        shard_size: int = 5 * 10**9,
    ) -> Report:
        """Write the model as `breadcrumbs merge -o` does, and return the report.

        output: a folder, or a ``.safetensors`` file. Config and tokenizer of a base that is a path
        or hub id go with it, and the recipe and a model card. force: replace an output that exists.
        shard_size: bytes of a file of a folder at most.

        Models that were given as paths are merged again, streaming, and compared with what is here:
        OutputError for tensors that were changed since, which no recipe would make.
        """
        if not isinstance(output, str | os.PathLike):
            raise OutputError(
                f"save: {output!r} is not a path. Give a folder, or a .safetensors file."
            )
        return self._save(output, self, force=force, shard_size=shard_size)

    def push_to_hub(self, repo: str, **settings: Any) -> str:
        """Save the model to a folder for a moment and upload it; return the address of the commit.

        repo: ``org/name``, made if it is not there. settings: private, token, revision and message,
        as for `breadcrumbs.merging.publishing.push`.
        """
        return publishing.push_made(self.save, repo, **settings)

    def to_frame(self) -> Any:
        """Return name, dtype, shape and bytes of each tensor as a frame of pandas."""
        return notebook.frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        return Weights(open_mapping(self, "merged")).rows() if self else []

    def __reduce__(self) -> Any:
        return dict, (dict(self),)  # a plain dict of tensors is what others can read

    def __repr__(self) -> str:
        return f"<Merged of {counted(len(self), 'tensor')}: {self.report.summary}>"

    def _repr_html_(self) -> str:
        rows, report = self._rows(), self.report
        return notebook.table("Merged model", rows, {"merge": report.summary}, (), report.warnings)


def kind_of(base: Any, as_: Literal["numpy", "torch"] | None) -> str:
    """Return what a result is: a ``module``, ``torch`` tensors or ``numpy`` arrays, or what
    ``like`` the values of a mapping are."""
    if as_ is not None:
        return like.check(as_)
    if live.is_module(base):
        return "module"
    if isinstance(base, Weights):
        return base.as_
    return "like" if isinstance(base, Mapping) and not isinstance(base, Checkpoint) else "numpy"


def given_back(base: Any, state: Any, arrays: dict[str, Any], as_: Any = None) -> Any:
    """Return merged arrays as what the base was given as: a module, or a dict of tensors.

    state: the tensors of the base, where they are in memory. as_: ``numpy`` or ``torch``, instead.
    """
    kind = kind_of(base, as_)
    if kind == "numpy":
        return arrays
    made = like.like(state, arrays)
    if kind == "torch" and made is arrays:
        return {name: like.torch_of(array) for name, array in arrays.items()}
    if kind == "module":
        module, called = live.copied(base, "base"), getattr(state, "called", {})
        live.fill(module, {called.get(name, name): it for name, it in made.items()}, "base")
        return module
    return made
