"""Of clients' keys only hashes are kept, wherever they come from; and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.load import dump, load
from llamasup.config.schema import Config
from llamasup.config.secrets import hash_of
from tests.config.complaints import complaints, loaded

SECRET = "sk-a-long-enough-secret"
HASH = hash_of(SECRET.encode())


def hashes(config: Config) -> dict[str, str]:
    return {name: key.key_hash for name, key in config.keys.items()}


@pytest.mark.parametrize(
    "written",
    [f'key = "{SECRET}"', 'key_env = "ALICE"', 'key_file = "alice"', f'key_hash = "{HASH}"'],
)
def test_a_key_becomes_a_hash_wherever_it_comes_from(folder: Path, written: str) -> None:
    (folder / "alice").write_text(f"{SECRET}\n")
    config = loaded(f"[keys.alice]\n{written}", environ={"ALICE": SECRET})
    assert hashes(config) == {"alice": HASH}
    assert SECRET not in repr(config) + dump(config)


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("operator = true", "no key; write one of key, key_env, key_file or key_hash"),
        (f'key = "{SECRET}"\nkey_env = "ALICE"', "in several ways what the key is"),
        ('key = "short"', "the key is shorter than 16 characters"),
        ('key = "with spaces and more"', "or has other ones than a header may"),
        ('key_env = "NOBODY"', "the environment variable NOBODY is not set"),
        ('key_file = "missing"', "cannot be read (No such file or directory)"),
        ('key_file = "."', "cannot be read (Is a directory)"),
        ('key_file = "odd"', "holds no key"),
        ('key_hash = "sha256:12"', "key_hash is no hash"),
        (f'key_hash = "{HASH}"\nkey = "another-secret-of-length"', "the hash of another key"),
        ("expires = 5", "5 is not a date"),
        ("priority = 4", "4 is out of range; write a number from -4 to 3"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_without_the_key(
    folder: Path, written: str, complaint: str
) -> None:
    (folder / "odd").write_bytes(b"\xff" * 40)
    text = written if "key" in written else f'{written}\nkey = "{SECRET}"'
    text = written if complaint.startswith("no key") else text
    [line] = complaints(f"[keys.alice]\n{text}", environ={"ALICE": SECRET})
    assert complaint in line
    assert line.startswith("llamasup.toml: keys.alice")
    assert SECRET not in line


def test_two_names_with_one_key_are_one_too_many(folder: Path) -> None:
    text = "".join(f'[keys.{name}]\nkey = "{SECRET}"\n' for name in ("alice", "bob"))
    assert complaints(text) == [
        'llamasup.toml: keys.bob: "alice" has the same key; give each name a key of its own'
    ]


def test_a_name_must_fit_into_a_header_and_a_flag(folder: Path) -> None:
    [line] = complaints(f'[keys."a.b"]\nkey = "{SECRET}"')
    assert '"a.b" cannot be a key\'s name' in line


# --- a file of keys ---

WITH_FILE = '[server]\nkeys_file = "keys.toml"\n'


def test_a_file_of_keys_adds_to_those_of_the_configuration(folder: Path) -> None:
    other = hash_of(b"another")
    (folder / "keys.toml").write_text(f'[keys.bob]\nkey_hash = "{other}"\nat_once = 2\n')
    config = loaded(f'{WITH_FILE}[keys.alice]\nkey = "{SECRET}"')
    assert hashes(config) == {"alice": HASH, "bob": other}
    assert config.keys["bob"].at_once == 2
    Path("shown.toml").write_text(dump(config))
    assert load(Path("shown.toml")).keys == config.keys


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "keys.toml: there is no such file"),
        ("", "keys.toml: it holds no key, and without keys everybody could come in"),
        ("[keys]", "keys.toml: it holds no key"),
        ("[keys.bob", "keys.toml, line 1"),
        (f'[keys.alice]\nkey_hash = "{HASH}"', "keys.toml: keys.alice: another table"),
        (f'[server]\n[keys.bob]\nkey_hash = "{HASH}"', "keys.toml: server: this does not belong"),
        ("[keys.bob]\nkeyhash = 1", "keys.toml: keys.bob.keyhash: this is not a known key"),
    ],
)
def test_a_file_of_keys_that_is_wrong_opens_no_door(
    folder: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (folder / "keys.toml").write_text(content)
    lines = complaints(f'{WITH_FILE}[keys.alice]\nkey = "another-secret-of-length"')
    assert complaint in lines[0]
