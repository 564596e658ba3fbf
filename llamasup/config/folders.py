"""Where llamasup keeps its files: as `[folders]` says, or in the system's usual places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import platformdirs

from llamasup.config.schema import Config
from llamasup.processes.run_folder import default_base


def cache_folder(config: Config) -> Path:
    """Where downloads and the demo model lie."""
    if config.folders.cache == "auto":
        return platformdirs.user_cache_path("llamasup")
    return config.folders.cache


def run_base(config: Config, environ: Mapping[str, str]) -> Path:
    """The folder in which each llamasup has a folder of its own for its sockets.

    Raises OperatorError if that would be a temporary folder which another user has made.
    """
    return default_base(environ) if config.folders.run == "auto" else config.folders.run


def state_file(config: Config) -> Path:
    """The file of what was learned."""
    folder = config.folders.state
    return (platformdirs.user_state_path("llamasup") if folder == "auto" else folder) / "state.json"
