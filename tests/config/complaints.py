"""Text as an operator writes it into llamasup.toml, and what llamasup answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamasup.config.load import load
from llamasup.config.problems import ConfigError
from llamasup.config.schema import Config


def loaded(text: str, **layers: Any) -> Config:
    """The text as the current folder's file, loaded."""
    Path("llamasup.toml").write_text(text, encoding="utf-8")
    return load(Path("llamasup.toml"), **layers)


def complaints(text: str, **layers: Any) -> list[str]:
    """Everything that is said about it, a line each."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, **layers)
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).splitlines()
