"""The folder of the user's machine where the package keeps what it can get or compute again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/cdvae_kit`, by default `~/.cache/cdvae_kit`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification wants relative paths ignored
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "cdvae_kit"
