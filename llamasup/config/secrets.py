"""What the tables of clients' keys say of the keys themselves: only hashes of them are kept.

A key comes from the file itself, an environment variable, a file of its own, or is a hash already.
All tables may lie in a file of their own, `server.keys_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import attrs

from llamasup.config import toml_file
from llamasup.config.problems import ConfigError, Key, Problem, Refusal, Unfit
from llamasup.config.schema import Config, KeySettings
from llamasup.config.tree import Origin, Tree
from llamasup.config.wording import shown
from llamasup.files import open_regular

SHORTEST: Final = 16
"""Characters. The hash is a fast one, because it is made for each request: a short key could be
guessed from it, and over the network."""

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SECRET: Final = re.compile(rf"[!-~]{{{SHORTEST},512}}")
_HOW: Final = 'write one of key, key_env, key_file or key_hash ("llamasup key add" makes one)'
_MOST_READ: Final = 4096


def hash_of(secret: bytes) -> str:
    """The hash of a key, as `key_hash` has it."""
    return f"sha256:{sha256(secret).hexdigest()}"


def lay_keys_file(tree: Tree) -> None:
    """Put the tables of `server.keys_file` into the tree, if one is named. Raises ConfigError if it
    cannot be read: without it, everybody could come in."""
    if (file := path(tree, "server", "keys_file")) is None:
        return
    origin = Origin(str(file), file.parent)
    written = toml_file.read(file)
    if not written.get("keys"):
        what = "it holds no key, and without keys everybody could come in"
        fix = 'let "llamasup key add" make one, or take server.keys_file away'
        raise ConfigError([Problem(str(file), "", what, fix)])
    for section, tables in written.items():
        if section != "keys" or not isinstance(tables, dict):
            unfit = Unfit("this does not belong here", "write [keys.NAME] tables only")
            tree.refuse_at(origin, (section,), unfit)
            continue
        for name, table in tables.items():
            if tree.table("keys").get(name, table) != table:
                unfit = Unfit("another table has this name, too", "rename one of them")
                tree.refuse_at(origin, ("keys", name), unfit)
            else:
                tree.put(("keys", name), table, origin)


def files(tree: Tree) -> tuple[Path, ...]:
    """All files of keys that are named, whether they are there or not."""
    with suppress(ConfigError):
        lay_keys_file(tree)
    keys = [("server", "keys_file"), *(("keys", name, "key_file") for name in tree.table("keys"))]
    return tuple(file for key in keys if (file := path(tree, *key)))


def path(tree: Tree, *key: str) -> Path | None:
    """The path that is written under this key, if any."""
    named = tree.get(*key)
    if not isinstance(named, str | Path) or str(named) in ("", "none"):
        return None
    try:
        return tree.origin(key).folder / Path(named).expanduser()
    except RuntimeError:  # no such user; `structure` says so
        return None


def with_hashes(config: Config, tree: Tree, environ: Mapping[str, str]) -> Config:
    """The configuration with a hash in place of each key. What is wrong with a key is noted as a
    problem of the tree."""
    keys: dict[str, KeySettings] = {}
    for name, settings in config.keys.items():
        try:
            keys[name] = _hashed(settings, environ)
        except Unfit as unfit:
            tree.refuse([(("keys", name), unfit)])
    tree.refuse(_twins(keys))
    return attrs.evolve(config, keys=keys)


def _hashed(settings: KeySettings, environ: Mapping[str, str]) -> KeySettings:
    secrets = [settings.key] if settings.key else []
    if settings.key_env:
        secrets.append(_from_environment(settings.key_env, environ))
    if settings.key_file != "none":
        secrets.append(_from_file(settings.key_file))
    if len(secrets) > 1 or not (secrets or settings.key_hash):
        raise Unfit("this says in several ways what the key is" if secrets else "no key", _HOW)
    if settings.key_hash and not _HASH.fullmatch(settings.key_hash):
        raise Unfit("key_hash is no hash", 'write "sha256:" and 64 hexadecimal digits')
    hashed = _hash_of_text(secrets[0]) if secrets else settings.key_hash
    if settings.key_hash not in ("", hashed):
        raise Unfit("key_hash is the hash of another key", _HOW)
    return attrs.evolve(settings, key="", key_hash=hashed)


def _hash_of_text(secret: str) -> str:
    if not _SECRET.fullmatch(secret):
        raise Unfit(
            f"the key is shorter than {SHORTEST} characters, or has other ones than a header may",
            'let "llamasup key add" make one',
        )
    return hash_of(secret.encode())


def _from_environment(variable: str, environ: Mapping[str, str]) -> str:
    if not (secret := environ.get(variable, "").strip()):
        raise Unfit(f"the environment variable {variable} is not set", "set it to the key")
    return secret


def _from_file(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            return opened.read(_MOST_READ).decode("ascii").strip()
    except OSError as error:
        raise Unfit(f"{shown(str(file))} cannot be read ({error.strerror})", _IN_FILE) from None
    except UnicodeDecodeError:
        raise Unfit(f"{shown(str(file))} holds no key", _IN_FILE) from None


_IN_FILE: Final = "write the key into it, alone"


def _twins(keys: Mapping[str, KeySettings]) -> Iterator[Refusal]:
    owners: dict[str, str] = {}
    for name, settings in keys.items():
        owner = owners.setdefault(settings.key_hash, name)
        if owner != name:
            key: Key = ("keys", name)
            yield key, Unfit(f'"{owner}" has the same key', "give each name a key of its own")
