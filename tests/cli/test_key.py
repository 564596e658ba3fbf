"""An operator makes keys, sees which there are, and takes them away."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.cli import main
from llamasup.config.load import load
from llamasup.config.secrets import hash_of

KEYS = Path("keys.toml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's folder, with a configuration that names a file of keys."""
    monkeypatch.chdir(tmp_path)
    Path("llamasup.toml").write_text('[server]\nkeys_file = "keys.toml"\n')


def test_a_key_is_shown_once_and_its_hash_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "add", "alice"]) == 0
    shown, told = capsys.readouterr()
    assert (len(shown.split()), shown[:3]) == (1, "sk-")
    assert shown.strip() not in KEYS.read_text() + told
    assert KEYS.stat().st_mode & 0o777 == 0o600
    (alice,) = load(Path("llamasup.toml")).keys.values()
    assert alice.key_hash == hash_of(shown.strip().encode())
    assert not alice.operator


def test_a_key_can_be_an_operator_s_and_what_was_written_by_hand_stays() -> None:
    main(["key", "add", "alice"])
    KEYS.write_text(f"# of the lab\n{KEYS.read_text()}at_once = 3  # her own wish\n")
    assert main(["key", "add", "bob@home", "--operator"]) == 0
    assert main(["key", "add", "carol"]) == 0
    assert main(["key", "remove", "bob@home"]) == 0
    assert "her own wish" in KEYS.read_text()
    assert "# of the lab" in KEYS.read_text()
    keys = load(Path("llamasup.toml")).keys
    assert {name: key.at_once for name, key in keys.items()} == {"alice": 3, "carol": 0}


def test_what_each_key_may_do_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["key", "add", "alice"])
    main(["key", "add", "bob", "--operator"])
    with KEYS.open("a") as file:
        file.write('models = ["qwen*"]\nrequests_per_minute = 60\nexpires = 2027-01-31\n')
    capsys.readouterr()
    assert main(["key", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "alice: models *",
        "bob: operator, models qwen*, 60 requests a minute, expires 2027-01-31T00:00:00+00:00",
    ]


def test_without_keys_the_list_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("llamasup.toml").write_text("")
    assert main(["key", "list"]) == 0
    said = capsys.readouterr()
    assert not said.out
    assert "llamasup key add NAME" in said.err


def test_without_a_file_of_keys_the_lines_to_write_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("llamasup.toml").write_text("# nothing yet\n")
    assert main(["key", "add", "alice"]) == 0
    shown, told = capsys.readouterr()
    assert f'[keys.alice]\nkey_hash = "{hash_of(shown.strip().encode())}"\n' in told
    assert not KEYS.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["add", "alice"], 'there is a key "alice"'),
        (["add", "a.b"], "write letters, digits"),
        (["remove", "bob"], 'there is no key "bob"'),
        (["remove", "alice"], "without keys everybody could come in"),
    ],
)
def test_what_would_go_wrong_is_refused_and_changes_nothing(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["key", "add", "alice"])
    before = KEYS.read_text()
    assert main(["key", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert KEYS.read_text() == before


def test_a_file_that_is_written_in_a_way_of_its_own_is_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = '{{ key_hash = "sha256:{}" }}'
    inline = f"keys = {{ a = {table.format('1' * 64)}, b = {table.format('2' * 64)} }}\n"
    KEYS.write_text(inline)
    assert main(["key", "remove", "a"]) == 2
    assert "by hand" in capsys.readouterr().err
    assert KEYS.read_text() == inline
