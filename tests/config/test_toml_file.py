"""Broken files, told with their cure; and TOML that reads back as it was written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.config.problems import ConfigError
from llamasup.config.toml_file import parsed, read, written
from tests.harness import steps


def complaint(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[server]\nlisten = "a\n',
            "x.toml, line 2, column 12: Illegal character '\\n'; correct the TOML there",
        ),
        (
            "[server]\nlisten = [\n",
            "x.toml, line 3, column 1: Invalid value; correct the TOML there",
        ),
        (
            "x = " + "9" * 5000,
            "x.toml: a number is too long or brackets are too deep; write them shorter",
        ),
        (
            "x = " + "[" * 100_000,
            "x.toml: a number is too long or brackets are too deep; write them shorter",
        ),
    ],
    ids=["line", "end", "digits", "brackets"],
)
def test_broken_toml_is_told_with_line_and_column(folder: Path, text: str, told: str) -> None:
    Path("x.toml").write_text(text)
    assert complaint(Path("x.toml")) == told


def test_a_missing_file_is_told(folder: Path) -> None:
    told = "no.toml: there is no such file; create it, or name another"
    assert complaint(Path("no.toml")) == told


def test_a_folder_in_the_file_s_place_is_told(folder: Path) -> None:
    assert complaint(folder) == f"{folder}: this is a folder; name the file in it"


def test_an_unreadable_file_is_told(folder: Path) -> None:
    loop = Path("loop.toml")
    loop.symlink_to(loop)
    told = complaint(loop)
    assert told.startswith("loop.toml: cannot be read (")
    assert told.endswith("); change its permissions, or name another")


def test_a_file_in_another_encoding_is_told(folder: Path) -> None:
    Path("latin.toml").write_bytes('x = "é"'.encode("latin-1"))
    told = "latin.toml: byte 6 is not UTF-8 text; save the file as UTF-8"
    assert complaint(Path("latin.toml")) == told


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(folder: Path) -> None:
    Path("w.toml").write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "debug"\r\n')
    assert read(Path("w.toml")) == {"log": {"level": "debug"}}


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\\x41")
@example("\x7f\x1b[0m")
def test_written_text_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "written.toml"
    file.write_bytes(written({"a": {"b": text}}).encode())
    assert read(file) == {"a": {"b": text}}


DEEP = {
    "bare": ".".join("a" * 20_000) + " = 1",
    "quoted": " . ".join(['"a.b"', "'c'"] * 5_000) + " = 1",
    "a table": "[" + ".".join("a" * 20_000) + "]",
    "many of them": "\n".join(f"{'.'.join('a' * 300)}{number} = 1" for number in range(100)),
    "behind a text": "x = '''\n\"\"\"'''\n" + ".".join("a" * 20_000) + " = 1",
}


@pytest.mark.parametrize("deep", DEEP)
def test_a_key_of_very_many_dots_is_told_at_once(deep: str) -> None:
    def refused() -> None:
        with pytest.raises(ConfigError, match=r"x.toml, line \d: a key has more than 10 parts"):
            parsed(DEEP[deep].encode(), "x.toml")

    assert steps(refused) < 10_000


@pytest.mark.parametrize(
    "text",
    [
        "a.b.c.d.e.f.g.h.i.j = 1",
        'x = "a.b.c.d.e.f.g.h.i.j.k.l.m"',
        "x = 'a.b.c.d.e.f.g.h.i.j.k.l.m'",
        'x = """\na.b.c.d.e."f".g.h.i.j.k\n"""',
        "x = '''\na.b.c.d.e.'f'.g.h.i.j.k\n'''",
        "x = 1 # a.b.c.d.e.f.g.h.i.j.k.l.m",
        r'x = "\"" # a.b.c.d.e.f.g.h.i.j.k.l.m"',
        '[models."a.b.c.d.e.f.g.h.i.j.k.l.m"]',
        "x = [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5, 12.5]",
    ],
)
def test_dots_that_part_no_key_do_not_count(text: str) -> None:
    assert parsed(text.encode(), "x.toml") == tomllib.loads(text)
