"""Fetch a model from a hub into the cache of `huggingface_hub`, which keeps to its own variables.

HF_HOME and HF_HUB_CACHE say where the cache is, HF_TOKEN who asks, HF_ENDPOINT whom, and
HF_HUB_OFFLINE that nobody is asked. Of the repository come the weights that would be opened (one
format, only the shards of its index), the small files at its top level that go with them, and the
subfolders that its `modules.json` names (sentence-transformers); no code, no other subfolders.
"""

from __future__ import annotations

import glob
from pathlib import Path

from breadcrumbs.checkpoint.beside import MODULES, is_module_weights, module_names
from breadcrumbs.checkpoint.folder import INDEX, read_index, weight_files
from breadcrumbs.errors import CheckpointError

#: The files of an adapter of PEFT.
_ADAPTER = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
)
_BESIDE = (".json", ".jinja", ".md", ".model", ".tiktoken", ".txt")


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
        info = hub.HfApi().model_info(repo, revision=revision)
        names = [file.rfilename for file in info.siblings or []]
        weights = weight_files([name for name in names if "/" not in name], where)
        files = [*weights, *(name for name in names if _is_beside(name))]
        if weights[0].endswith(INDEX):
            index = hub.hf_hub_download(repo, weights[0], revision=revision)
            files += sorted(set(read_index(index).values()))
        if MODULES in names:
            listed = Path(hub.hf_hub_download(repo, MODULES, revision=revision))
            modules = module_names(listed)
            files += [name for name in names if _is_of_module(name, modules)]
        patterns = [glob.escape(name) for name in files]
        folder = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except CheckpointError:
        raise
    except Exception as error:  # of several HTTP libraries, by version
        raise _explained(error, where, offline) from None
    if folder.name != info.sha:
        raise CheckpointError(f"{where}: was changed while it was downloaded. Run this again.")
    return folder, folder.name


def fetch_adapter(repo: str, revision: str | None = None) -> tuple[Path, str]:
    """Return the folder in the cache that holds the adapter ``repo``, and its commit.

    Its config and weights alone are downloaded. CheckpointError, as for `fetch`, and where there is
    no adapter of PEFT.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    where = f"{repo}@{revision}" if revision else repo
    offline = constants.HF_HUB_OFFLINE
    try:
        folder = hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(_ADAPTER), local_files_only=offline
        )
    except Exception as error:  # of several HTTP libraries, by version
        raise _explained(error, where, offline) from None
    found = Path(folder)
    if not any((found / name).exists() for name in (_ADAPTER[0], _ADAPTER[-1])):
        place = "in the local cache" if offline else f"at {constants.ENDPOINT}"
        raise CheckpointError(
            f"{where}: has no {_ADAPTER[0]} {place}, so it is no adapter. Give the hub id of one,"
            " or a folder."
        )
    return found, found.name


def _is_beside(name: str) -> bool:
    """Whether ``name`` is a config, tokenizer, processor or text file at the top level."""
    if "/" in name or name.endswith(INDEX):
        return False
    return name.endswith(_BESIDE) or name.startswith(("LICENSE", "NOTICE"))


def _is_of_module(name: str, modules: list[str]) -> bool:
    """Whether ``name`` is a file of one of the subfolders ``modules`` that goes with it."""
    module, _, file = name.partition("/")
    if module not in modules or "/" in file:
        return False
    return is_module_weights(file) or _is_beside(file)


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
        text = "is neither a file or folder here nor a possible hub id. Ids are like org/name"
    elif status in (401, 403):
        text = f"is not open to you at {endpoint}. Set HF_TOKEN to a token that may read it"
    else:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        text = f"could not be downloaded from {endpoint} ({reason}). Check the connection and run "
        text += "this again, or set HF_HUB_OFFLINE=1 to use what is in the local cache"
    return CheckpointError(f"{where}: {text}.")
