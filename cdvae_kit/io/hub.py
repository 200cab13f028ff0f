"""The Hugging Face Hub: checkpoints from and to it, through `huggingface_hub` (extra `hub`), which keeps its own cache.

Only a checkpoint's two files and its card travel; what is fetched is checked by `checkpoint` like any other folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from cdvae_kit.io.carried import HUB_PREFIX
from cdvae_kit.io.checkpoint import CONFIG_NAME, WEIGHTS_NAME, CheckpointError

CARD_NAME = "README.md"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


class HubReference(NamedTuple):
    """A repository of the Hub, and which state of it; None is the newest."""

    repo: str
    revision: str | None


def parse_reference(name: str) -> HubReference:
    """The parts of `hf:owner/name` or `hf:owner/name@revision`.

    >>> parse_reference("hf:owner/name@v1.0")
    HubReference(repo='owner/name', revision='v1.0')
    """
    found = _REFERENCE.fullmatch(name)
    if found is None:
        raise ValueError(f"expected hf:owner/name or hf:owner/name@revision, got {name!r}")
    return HubReference(found["repo"], found["revision"])


def fetch_checkpoint(name: str, *, token: str | None = None) -> Path:
    """The folder in the Hub's cache that holds the checkpoint `hf:owner/name`, fetched where it is not there yet.

    Without a network the cached one is taken, where there is one.

    Args:
        name: see `parse_reference`.
        token: for private repositories; the one that `hf auth login` keeps if None.

    Raises:
        CheckpointError: there is no such repository or revision, it cannot be reached, or it holds no checkpoint.
    """
    repo, revision = parse_reference(name)
    hub = _hub()
    try:
        folder = Path(
            hub.snapshot_download(
                repo, revision=revision, token=token, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME]
            )
        )
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError) as error:
        # the first line says what it is; the others are advice on tokens
        raise CheckpointError(f"cannot fetch {name} from the Hub: {str(error).strip().splitlines()[0]}") from error
    if not (folder / CONFIG_NAME).is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise CheckpointError(f"{name} holds no checkpoint of cdvae_kit: it needs {CONFIG_NAME} and {WEIGHTS_NAME}")
    return folder


def publish_checkpoint(
    folder: str | os.PathLike[str], repo: str, *, private: bool = False, token: str | None = None, message: str
) -> str:
    """Uploads a checkpoint's folder, card included, and gives the address of the commit.

    Args:
        folder: a checkpoint, with its card as README.md.
        repo: `owner/name`; it is made where there is none.
        private: of a new repository: only its owner sees it.
        token: the one that `hf auth login` keeps if None.
        message: of the commit.

    Raises:
        CheckpointError: the Hub cannot be reached, or refuses.
    """
    parse_reference(HUB_PREFIX + repo.removeprefix(HUB_PREFIX))
    repo = repo.removeprefix(HUB_PREFIX)
    hub = _hub()
    try:
        api = hub.HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=message,
            allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME],
        )
    except (hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError, OSError) as error:
        raise CheckpointError(f"cannot upload to {repo}: {str(error).strip().splitlines()[0]}") from error
    return str(commit.commit_url)


def _hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError("the Hugging Face Hub needs huggingface_hub: pip install 'cdvae-kit[hub]'") from error
    return huggingface_hub
