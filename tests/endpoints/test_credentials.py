"""Keys and headers: from where they are named, and an error that says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamasup.config.schema import Config, EndpointSettings
from llamasup.endpoints.credentials import with_credentials
from llamasup.errors import OperatorError


def completed(environ: dict[str, str], **entry: Any) -> EndpointSettings:
    config = Config(endpoints=(EndpointSettings(name="box", url="http://box", **entry),))
    return with_credentials(config, environ).endpoints[0]


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert completed({}, key="plain").key == "plain"
    assert completed({"KEY": "from-env"}, key_env="KEY").key == "from-env"
    assert completed({}, key_file=file).key == "from-file"


def test_variables_in_headers_are_put_in() -> None:
    headers = completed({"A": "1"}, headers={"X-A": "v${A}", "X-B": "$A {A}"}).headers
    assert headers == {"X-A": "v1", "X-B": "$A {A}"}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"key_env": "NOPE"}, 'endpoint "box": the environment variable NOPE is not set'),
        ({"headers": {"X": "${NOPE}"}}, "the environment variable NOPE is not set"),
        ({"key_file": Path("/nonexistent")}, "/nonexistent cannot be read"),
        ({"key_env": "BAD"}, "its key holds what no header can hold"),
    ],
)
def test_what_is_missing_is_told(entry: dict[str, Any], why: str) -> None:
    with pytest.raises(OperatorError, match=why):
        completed({"BAD": "a\r\nb"}, **entry)
