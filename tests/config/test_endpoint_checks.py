"""What may stand in `[[endpoints]]`, and what is said about anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.load import dump
from tests.config.complaints import complaints, loaded

ENTRY = '[[endpoints]]\nname = "box"\nurl = "http://box:1"\n'


def test_an_entry_is_read_with_its_defaults(folder: Path) -> None:
    config = loaded(ENTRY + 'key_file = "k"\nmodels = "a-*"\nrename = { x = "y" }\n')
    [entry] = config.endpoints
    assert (entry.models, entry.rename, entry.key_file) == (("a-*",), {"x": "y"}, folder / "k")
    Path("written.toml").write_text(dump(config))
    assert loaded(Path("written.toml").read_text()) == config


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('name = "a b"\nurl = "http://x"', 'endpoints[0].name: "a b" cannot be an endpoint'),
        ('name = "a"\nurl = "x"', 'endpoints[0].url: "x" is not the URL of an instance'),
        ('name = "a"', "endpoints[0].url: this is missing"),
        ('name = "a"\nurl = "http://x/v1"', "leave out /v1"),
        ('name = "a"\nurl = "http://x"\nkey = "a"\nkey_env = "B"', "there is key, too"),
        ('name = "a"\nurl = "http://x"\nheaders = { Host = "y" }', "llamasup writes Host itself"),
        ('name = "a"\nurl = "http://x"\nheaders = { "a b" = "y" }', "cannot be a header's name"),
        ('name = "a"\nurl = "http://x"\nheaders = { a = "y\\n" }', "no header can hold this"),
        ('name = "a"\nurl = "http://x"\nmax_in_flight = 0', "0 is less than 1"),
        ('name = "a"\nurl = "http://x"\nbalance = "x"', "this is not a known key"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder: Path, lines: str, complaint: str) -> None:
    [said] = complaints(f"[[endpoints]]\n{lines}\n")
    assert complaint in said


def test_two_entries_have_two_names(folder: Path) -> None:
    [said] = complaints(ENTRY + ENTRY)
    assert 'endpoints[1].name: "box" is there twice' in said


def test_the_default_model_may_be_elsewhere(folder: Path) -> None:
    assert loaded('[server]\ndefault_model = "far"\n' + ENTRY).server.default_model == "far"
