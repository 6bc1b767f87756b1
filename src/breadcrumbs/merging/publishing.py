"""Merged models on a hub: a folder, uploaded as it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import hub
from breadcrumbs.errors import OutputError


def push(
    folder: Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload a merged model",
) -> str:
    """Upload a folder to a model repository of a hub; return the address of the commit.

    repo: ``org/name``, made if it is not there: private, or as the organisation has it for None.
    token: unless told, that of the machine (HF_TOKEN). revision: a branch, made if it is not there.
    OutputError, in a line, where the hub refuses.
    """
    import huggingface_hub

    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder. Give the folder of a merged model.")
    api = huggingface_hub.HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, commit_message=message
        )
    except Exception as error:  # of several HTTP libraries, by version
        raise OutputError(hub.upload_failed(error, repo)) from None
    return str(commit.commit_url)


def push_made(save: Callable[[Path], Any], repo: str, **settings: Any) -> str:
    """Upload what ``save`` writes into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="breadcrumbs-") as home:
        folder = Path(home) / "model"
        save(folder)
        return push(folder, repo, **settings)
