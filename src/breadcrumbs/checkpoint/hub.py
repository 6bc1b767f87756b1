"""Fetch a model from a hub into the cache of `huggingface_hub`, which keeps to its own variables.

HF_HOME and HF_HUB_CACHE say where the cache is, HF_TOKEN who asks, HF_ENDPOINT whom, and
HF_HUB_OFFLINE that nobody is asked. Of the repository come the parts of the model
(`breadcrumbs.checkpoint.parts`): of each the weights that would be opened (one format, only the
shards of its index), and the small files that go with them. Python files come where the configs
name them, and are never run here.
"""

from __future__ import annotations

import glob
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from breadcrumbs.checkpoint import parts
from breadcrumbs.checkpoint.beside import RECIPE
from breadcrumbs.checkpoint.folder import AdapterError, is_index, read_index
from breadcrumbs.errors import CheckpointError

#: What may lie beside an adapter: a tokenizer, and a card whose licence counts.
_BESIDE = (
    "README.md",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
)
#: The files of an adapter of PEFT, and that of diffusers.
_ADAPTER = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
)


@dataclass(frozen=True)
class Remote:
    """The tree of a repository. sizes: of its files, by path, where the hub tells."""

    where: str
    repo: str
    revision: str | None
    sizes: dict[str, int | None]
    kept: dict[str, bytes] = field(default_factory=dict)

    def files(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        inside = [path[len(start) :] for path in self.sizes if path.startswith(start)]
        return sorted(name for name in inside if "/" not in name)

    def is_folder(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in self.sizes)

    def size(self, path: str) -> int | None:
        return self.sizes.get(path)

    def read(self, path: str) -> bytes:
        if path not in self.kept:
            self.kept[path] = self.fetched(path).read_bytes()
        return self.kept[path]

    def fetched(self, path: str) -> Path:
        """Return a file of the repository, in the cache."""
        import huggingface_hub as hub

        return Path(hub.hf_hub_download(self.repo, path, revision=self.revision))

    def wanted(self) -> list[str]:
        """Return the paths of all that the model consists of."""
        found, weights = [], parts.weights(self)
        for part in ("", *parts.folders(self)):
            mine = weights.get(part, [])
            for name in mine:
                if is_index(name):
                    index = self.fetched(f"{part}/{name}" if part else name)
                    mine = [*mine, *sorted(set(read_index(index).values()))]
            mine = [*mine, *parts.files(self, part), *parts.extra(self, part)]
            found += [f"{part}/{name}" if part else name for name in mine]
        return list(dict.fromkeys(found))


def fetch(repo: str, revision: str | None = None) -> tuple[Path, str]:
    """Return the folder in the cache that holds ``repo``, and the commit that ``revision`` means.

    revision: branch, tag or commit; the main branch unless given. CheckpointError, on one line,
    when the model or revision does not exist, is not open to this user, or cannot be reached.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    where = f"{repo}@{revision}" if revision else repo
    offline = constants.HF_HUB_OFFLINE
    try:
        if offline:
            nothing_new: list[str] = []
            folder = hub.snapshot_download(
                repo, revision=revision, allow_patterns=nothing_new, local_files_only=True
            )
            return Path(folder), Path(folder).name
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        try:
            files = Remote(where, repo, revision, sizes).wanted()
        except AdapterError:
            _check_config(where, sizes)
            raise
        files += [name for name in sizes if name in ("README.md", RECIPE)]  # licence, and how made
        patterns = [glob.escape(name) for name in files]
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except CheckpointError:
        raise
    except Exception as error:  # of several HTTP libraries, by version
        raise _explained(error, where, offline) from None
    if folder.name != info.sha:
        raise CheckpointError(f"{where}: was changed while it was downloaded. Run this again.")
    return folder, folder.name


def listed(repo: str, revision: str | None = None) -> tuple[str, dict[str, tuple[int, str | None]]]:
    """Return the commit that ``revision`` means, and the files there: bytes, and SHA-256 if the hub
    tells, by path. Nothing is downloaded. CheckpointError as for `fetch`."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    where = f"hf://{repo}@{revision}" if revision else f"hf://{repo}"
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{where}: HF_HUB_OFFLINE forbids to read it. Unset it, or give {where[5:]}, which is"
            " taken from the local cache."
        )
    try:
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:  # of several HTTP libraries, by version
        raise _explained(error, where, offline=False) from None
    files = {
        file.rfilename: (file.size, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or []
        if file.size is not None
    }
    return str(info.sha), files


def fetch_adapter(repo: str, revision: str | None = None) -> tuple[Path, str]:
    """Return the folder in the cache that holds the adapter ``repo``, and its commit.

    Its config, weights and tokenizer are downloaded, nothing of its training. CheckpointError, as
    for `fetch`, and where there is no adapter of PEFT.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    where = f"{repo}@{revision}" if revision else repo
    offline = constants.HF_HUB_OFFLINE
    try:
        folder = hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_ADAPTER, *_BESIDE],
            local_files_only=offline,
        )
    except Exception as error:  # of several HTTP libraries, by version
        raise _explained(error, where, offline) from None
    found = Path(folder)
    if not any((found / name).exists() for name in (_ADAPTER[0], _ADAPTER[-1])):
        place = "in the local cache" if offline else f"at {constants.ENDPOINT}"
        raise CheckpointError(
            f"{where}: has no {_ADAPTER[0]} {place}, so it is not an adapter. Give the hub id"
            f" of one,"
            " or a folder."
        )
    return found, found.name


def _check_config(where: str, names: Collection[str]) -> None:
    """Raise CheckpointError for an adapter of PEFT without its config."""
    if _ADAPTER[0] not in names:
        raise CheckpointError(
            f"{where}: is an adapter of PEFT without its {_ADAPTER[0]}, so its scale is not known."
            " Give one with both."
        )


def upload_failed(error: Exception, repo: str) -> str:
    """Return in a line why a model could not be uploaded, and what to do about it."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    endpoint = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        text = "HF_HUB_OFFLINE forbids to upload. Unset it"
    elif isinstance(error, errors.HFValidationError):
        text = "is not a valid hub id. Ids are like org/name"
    elif status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        text = f"{endpoint} refuses this token. Set HF_TOKEN to one that may write there"
    elif status == 412:
        text = "was changed in the meantime, so nothing is changed. Run this again"
    else:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        text = f"could not be uploaded to {endpoint} ({reason}). Run this again"
    return f"{repo}: {text}."


def _explained(error: Exception, where: str, offline: bool) -> CheckpointError:
    """Return ``error``, raised by `huggingface_hub`, as one line with what to do about it."""
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    if offline:
        text = "is not in the local cache, and HF_HUB_OFFLINE forbids to download it. Unset it once"
    elif isinstance(error, errors.GatedRepoError):
        text = f"is gated. Accept its terms at {endpoint}/{where.split('@')[0]} and set HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        text = f"is neither a file or folder here nor a model at {endpoint}. Where it is private, "
        text += "set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        text = f"has no such branch, tag or commit at {endpoint}. Check what follows the '@'"
    elif isinstance(error, errors.HFValidationError):
        text = "is neither a file or folder here nor a valid hub id. Ids are like org/name"
    elif status in (401, 403):
        text = f"is not accessible to you at {endpoint}. Set HF_TOKEN to a token that may read it"
    else:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        text = f"could not be downloaded from {endpoint} ({reason}). Check the connection and run "
        text += "this again, or set HF_HUB_OFFLINE=1 to use what is in the local cache"
    return CheckpointError(f"{where}: {text}.")
