"""The examples mean what they say: each is loaded, or read for what must stand in it."""

from __future__ import annotations

import plistlib
import re

from llamasup.config.load import load
from tests.harness import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def test_the_lab_has_no_key_that_could_be_copied() -> None:
    config = load(EXAMPLES / "lab.toml")
    assert config.server.admin_key == ""
    assert {"qwen3-8b", "llama-70b", "nomic-embed"} == config.models.keys()


def test_the_unit_gives_away_nothing_that_it_does_not_need() -> None:
    unit = dict(re.findall(r"(?m)^(\w+)=(.*)$", (EXAMPLES / "llamasup.service").read_text()))
    assert unit["User"] != "root"
    confined = ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces")
    assert {unit[key] for key in confined} == {"yes"}
    assert (unit["CapabilityBoundingSet"], unit["ProtectSystem"]) == ("", "strict")
    assert unit["KillMode"] == "mixed"


def test_the_log_of_launchd_lies_where_no_other_user_can_put_a_link() -> None:
    agent = plistlib.loads((EXAMPLES / "org.llamasup.plist").read_bytes())
    assert not agent["StandardErrorPath"].startswith("/tmp")


def test_the_container_runs_as_a_user_without_rights() -> None:
    lines = (EXAMPLES / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert any("libgomp1" in line for line in lines)  # the engine from PyPI needs it
