"""Merged models on a hub: a folder, uploaded as it is, in one commit.

Files of weights are uploaded first, and what the hub has by its hash is not uploaded again, so an
upload that was interrupted goes on where it was. Nothing of it is seen before the commit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import hub, layout, parts
from breadcrumbs.errors import OutputError

#: Ends of files of weights that a repository may have; ours, and older ones.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
_MESSAGE = "Upload a merged model"


@dataclass(frozen=True)
class Repository:
    """A model repository, as it is before an upload. public: whether all may read it, or will.

    exists: whether it is there. head: its latest commit; old: files of a model in it.
    """

    name: str
    endpoint: str
    public: bool
    exists: bool = False
    head: str | None = None
    old: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """What it is, in words."""
        kind = "public" if self.public else "private"
        state = "is there" if self.exists else "is made"
        gone = f"; {len(self.old)} files of its model are replaced" if self.old else ""
        return f"{self.endpoint}/{self.name}, {kind}, {state}{gone}"


def looked(
    repo: str, *, public: bool = False, force: bool = False, token: str | None = None
) -> Repository:
    """Return a repository of a hub that a model may be pushed to; nothing is changed there.

    public: whether all may read it. force: whether a model that is there is replaced.
    OutputError for no ``org/name``, no token or one that may only read, a repository that all may
    read if it is not to be ``public``, or the reverse, and one that holds a model, without force.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise OutputError(f"{repo}: is not a valid hub id. Ids are like org/name.")
    api = huggingface_hub.HfApi(token=token)
    try:
        user = api.whoami()
        info = api.model_info(repo)
    except errors.RepositoryNotFoundError:
        info = None
    except Exception as error:  # of several HTTP libraries, by version
        raise OutputError(hub.upload_failed(error, repo)) from None
    role = ((user.get("auth") or {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise OutputError(
            f"{repo}: this token may only read. Set HF_TOKEN to one that may write there."
        )
    endpoint = constants.ENDPOINT
    if info is None:
        return Repository(repo, endpoint, public)
    if public == bool(info.private):
        now, what = ("private", "without --public") if public else ("public", "with --public")
        raise OutputError(
            f"{repo}: is there and {now}. Push {what}, change that in its settings at {endpoint},"
            " or give another name."
        )
    names = [file.rfilename for file in info.siblings or []]
    old = tuple(name for name in names if _is_of_model(name))
    if any(name.endswith(_WEIGHTS) for name in names) and not force:
        raise OutputError(
            f"{repo}: holds a model. Give another name, or --force to replace it, with its history"
            " kept."
        )
    return Repository(repo, endpoint, public, True, info.sha, old)


def _is_of_model(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(_WEIGHTS) or layout.is_ours(name) or bool(parts.kind(name))


def files(folder: Path) -> list[str]:
    """Return the paths in a folder of what is uploaded of it: all but what is hidden.

    OutputError unless a merged model is there.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder. Give the folder of a merged model.")
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    mine = [path.as_posix() for path in found if not any(p[0] == "." for p in path.parts)]
    if not any(path.endswith(".safetensors") for path in mine) or "README.md" not in mine:
        raise OutputError(
            f"{folder}: holds no weights with a model card (README.md). Give the folder of a merged"
            " model."
        )
    return mine


def upload(folder: Path, to: Repository, *, token: str | None = None) -> str:
    """Upload the folder of a merged model to a repository as it was looked at; return the address
    of the commit. OutputError, also where the repository has changed since."""
    import huggingface_hub

    mine = files(folder)
    api = huggingface_hub.HfApi(token=token)
    try:
        api.create_repo(to.name, private=not to.public, exist_ok=to.exists)
        head = to.head if to.exists else api.model_info(to.name).sha
        gone = [path for path in to.old if path not in mine]
        return _commit(api, folder, mine, to.name, gone=gone, parent_commit=head)
    except Exception as error:  # of several HTTP libraries, by version
        raise OutputError(
            f"{hub.upload_failed(error, to.name)} What was uploaded is not uploaded again."
        ) from None


def _commit(
    api: Any,
    folder: Path,
    paths: Iterable[str],
    repo: str,
    *,
    gone: Iterable[str] = (),
    message: str = _MESSAGE,
    **settings: Any,
) -> str:
    """Upload files and delete others, in one commit; return its address."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    changes: list[Any] = [CommitOperationAdd(path, folder / path) for path in paths]
    changes += [CommitOperationDelete(path) for path in gone]
    commit = api.create_commit(repo, changes, commit_message=message, **settings)
    return str(commit.commit_url)


def push(
    folder: Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = _MESSAGE,
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
        return _commit(api, folder, files(folder), repo, message=message, revision=revision)
    except OutputError:
        raise
    except Exception as error:  # of several HTTP libraries, by version
        raise OutputError(hub.upload_failed(error, repo)) from None


def push_made(save: Callable[[Path], Any], repo: str, **settings: Any) -> str:
    """Upload what ``save`` writes into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="breadcrumbs-") as home:
        folder = Path(home) / "model"
        save(folder)
        return push(folder, repo, **settings)
