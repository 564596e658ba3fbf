"""What the operator wrote becomes a `Config`: defaults < file < environment < flags.

All layers are laid onto one tree that remembers where each value was written. cattrs structures
the tree into the schema, strictly: what has the wrong type is refused, never converted. All that
is wrong is reported at once, as a `ConfigError`: the place, the key, and what to write instead.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
import cattrs
import toml  # type: ignore[import-untyped]
from cattrs.gen import make_dict_structure_fn, override
from platformdirs import user_config_path

from llamasup.config.addresses import parse_address
from llamasup.config.schema import Bytes, Config, Seconds, Unfit
from llamasup.errors import OperatorError

Key = tuple[str | int, ...]
"""The way to a value: names of tables and keys, positions in lists."""

_LARGEST = 2**63 - 1
"""TOML promises no larger integers, and no machine needs them."""


@attrs.frozen
class Problem:
    """One thing that is wrong: where it was written, under which key, and what would be right."""

    place: str
    key: str
    what: str
    fix: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.key, f"{self.what}; {self.fix}")))


class ConfigError(OperatorError):
    """The configuration cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def find(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The file to load: the one that $LLAMASUP_CONFIG names, or the first that exists."""
    if named := environ.get("LLAMASUP_CONFIG"):
        return cwd / named
    usual = (
        cwd / "llamasup.toml",
        user_config_path("llamasup") / "llamasup.toml",
        Path("/etc/llamasup/llamasup.toml"),
    )
    return next((file for file in usual if os.path.exists(file)), None)


def load(
    file: Path | None,
    environ: Mapping[str, str] = {},
    flags: Mapping[str, object] = {},
) -> Config:
    """The configuration in effect, its paths absolute; ConfigError says all that is wrong.

    Relative paths start at the file's folder, those of environment and flags at the current one.
    A flag's key is dotted: `server.listen`, `models.NAME.path`, where NAME may hold dots too.
    """
    if file is None:
        tree = _Tree({}, _Origin("defaults", Path.cwd()))
    else:
        tree = _Tree(_read(file), _Origin(str(file), file.absolute().parent))
    problems = [*_lay_environment(tree, environ), *_lay_flags(tree, flags)]
    try:
        config = _strict.structure(tree.values, Config)
    except cattrs.BaseValidationError as error:
        problems.extend(tree.problem(key, unfit) for key, unfit in _refusals(error))
    problems.extend(tree.problem(key, unfit) for key, unfit in _contradictions(tree))
    if problems:
        raise ConfigError(problems)
    return _with_absolute_paths(config, tree)


def dump(config: Config) -> str:
    """The configuration as TOML; loading it gives an equal one if its paths are absolute."""
    encoder = toml.TomlEncoder()
    encoder.dump_funcs[str] = _quoted
    return str(toml.dumps(_strict.unstructure(config), encoder=encoder))


# Durations and sizes

_MILLISECONDS = {"ms": 1, "": 1000, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,12})?) ?(ms|s|m|h|d|)")
_DURATIONS = 'write one such as "250ms", "90s", "30m", "1.5h" or "1d", or a number of seconds'

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,12})?) ?(?:([kmgt])(i?))?b?", re.IGNORECASE)
_SIZES = 'write one such as "64MiB", "1.5GB" or "512k", or a whole number of bytes'


def parse_duration(text: str) -> Seconds:
    """`"1.5h"` as seconds; `Unfit` (a ValueError) says how durations are written."""
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise Unfit(f"{_shown(text)} is not a duration", _DURATIONS)
    number, unit = matched.groups()
    return _duration(float(Fraction(number) * _MILLISECONDS[unit] / 1000))


def parse_size(text: str) -> Bytes:
    """`"64MiB"` as bytes, rounded to whole ones; `Unfit` (a ValueError) says how to write it.

    With an `i` a unit is a power of 1024, without one a power of 1000.
    """
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise Unfit(f"{_shown(text)} is not a size", _SIZES)
    number, prefix, binary = matched.groups()
    if prefix is None and "." in number:
        raise Unfit(f"{_shown(text)} is not a whole number of bytes", _SIZES)
    power = " kmgt".index(prefix.lower()) if prefix else 0
    return _size(round(Fraction(number) * (1024 if binary else 1000) ** power))


def _duration(value: object) -> Seconds:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise Unfit(f"{_shown(value)} is not a duration", _DURATIONS)
    return Seconds(abs(float(value)))  # TOML has a -0.0


def _size(value: object) -> Bytes:
    if isinstance(value, str):
        return parse_size(value)
    if type(value) is int and 0 <= value <= _LARGEST:
        return Bytes(value)
    raise Unfit(f"{_shown(value)} is not a size", _SIZES)


# Reading the file


def _read(file: Path) -> dict[str, Any]:
    place = str(file)
    text = ""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        what, fix = _unreadable(file, error)
    except UnicodeDecodeError as error:
        what, fix = f"byte {error.start + 1} is not UTF-8 text", "save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        what, position = _syntax_error(str(error), text)
        place, fix = f"{file}, {position}", "correct the TOML there"
    except (ValueError, RecursionError):
        # tomllib lets int() refuse thousands of digits, and recurses into brackets.
        what, fix = "a number is too long or brackets are too deep", "write them shorter"
    raise ConfigError([Problem(place, "", what, fix)])


def _unreadable(file: Path, error: OSError) -> tuple[str, str]:
    if file.is_dir():
        return "this is a folder", "name the file in it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file", "create it, or name another"
    return f"cannot be read ({error.strerror})", "change its permissions, or name another"


def _syntax_error(message: str, text: str) -> tuple[str, str]:
    """What is wrong and where. Before Python 3.14, only tomllib's message tells the position."""
    what, _, position = message.removesuffix(")").rpartition(" (at ")
    if position == "end of document":
        position = f"line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}"
    return what, position


# The tree of layers


@attrs.frozen
class _Origin:
    """Where a value was written, and the folder at which its relative paths start."""

    place: str
    folder: Path


class _Tree:
    """All layers on top of each other, with the origin of each value."""

    def __init__(self, values: dict[str, Any], origin: _Origin) -> None:
        self.values = values
        self._origins: dict[Key, _Origin] = {(): origin}

    def put(self, key: tuple[str, ...], value: object, origin: _Origin) -> None:
        table = self.values
        for depth, name in enumerate(key[:-1], start=1):
            if name not in table:
                table[name] = {}
                self._origins[key[:depth]] = origin
            table = table[name]
            if not isinstance(table, dict):
                raise Unfit(
                    f"there is no place for it, {_dotted(key[:depth])} is not a table",
                    "write a table there",
                )
        table[key[-1]] = value
        self._origins[key] = origin

    def origin(self, key: Key) -> _Origin:
        """A value's origin, or that of the innermost table around it which has one."""
        return next(
            self._origins[key[:depth]]
            for depth in range(len(key), -1, -1)
            if key[:depth] in self._origins
        )

    def problem(self, key: Key, unfit: Unfit) -> Problem:
        return Problem(self.origin(key).place, _dotted(key), unfit.what, unfit.fix)

    def get(self, *key: str) -> Any:
        """What was written, whatever it is; None if nothing was."""
        value: Any = self.values
        for name in key:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def table(self, *key: str) -> dict[str, Any]:
        value = self.get(*key)
        return value if isinstance(value, dict) else {}

    def texts(self, *key: str) -> list[tuple[Key, str]]:
        """The strings written under a key, one or many, each with its own full key."""
        value = self.get(*key)
        if isinstance(value, str):
            return [(key, value)]
        written = value if isinstance(value, list | tuple) else ()
        return [((*key, at), text) for at, text in enumerate(written) if isinstance(text, str)]


def _lay_environment(tree: _Tree, environ: Mapping[str, str]) -> Iterator[Problem]:
    variables = _variables()
    sections = sorted({f"LLAMASUP_{key[0]}_".upper() for key, _ in variables.values()})
    for name in sorted(environ):
        place = f"environment variable {name}"
        if name in variables:
            key, kind = variables[name]
            yield from _lay(tree, key, _read_variable(environ[name], kind), place)
        elif section := next(filter(name.startswith, sections), None):
            fix = _suggestion(name, variables, most=1, section=section)
            yield Problem(place, "", "this sets no known key", fix)


def _variables() -> dict[str, tuple[tuple[str, str], Any]]:
    """Every environment variable that sets a key, with that key and its type. None sets a table."""
    return {
        f"LLAMASUP_{section}_{key}".upper(): ((section, key), kind)
        for section, table in get_type_hints(Config).items()
        if attrs.has(table)
        for key, kind in get_type_hints(table).items()
        if get_origin(kind) is not Mapping
    }


def _read_variable(text: str, kind: Any) -> object:
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is int:
        try:
            return int(text, 0)
        except ValueError:
            return text
    return text


def _lay_flags(tree: _Tree, flags: Mapping[str, object]) -> Iterator[Problem]:
    for dotted, value in flags.items():
        section, _, rest = dotted.partition(".")
        if section == "models":
            name, _, last = rest.rpartition(".")
            yield from _lay(tree, (section, name, last), value, "flag")
        else:
            yield from _lay(tree, tuple(dotted.split(".")), value, "flag")


def _lay(tree: _Tree, key: tuple[str, ...], value: object, place: str) -> Iterator[Problem]:
    try:
        tree.put(key, value, _Origin(place, Path.cwd()))
    except Unfit as unfit:
        yield Problem(place, _dotted(key), unfit.what, unfit.fix)


# Structuring, strictly

_strict = cattrs.Converter(forbid_extra_keys=True)


def _table_hook(table: type[Any]) -> Callable[[Any, Any], Any]:
    overrides = {
        attribute.name: override(struct_hook=_key_hook(attribute))
        for attribute in attrs.fields(table)
    }
    structure = make_dict_structure_fn(table, _strict, **overrides)  # type: ignore[arg-type]

    def structure_table(value: object, kind: Any) -> Any:
        return structure(_expect_table(value), kind)

    return structure_table


def _key_hook(attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Structure one key and validate it at once: by itself a class stops at its first failure."""

    def structure_key(value: object, kind: Any) -> Any:
        if attribute.converter is not None and isinstance(value, str):
            value = [value]
        try:
            fitted = _strict.structure(_expect_container(value, kind), kind)
            if attribute.validator is not None:
                attribute.validator(None, attribute, fitted)
        except Unfit as unfit:
            hint = attribute.metadata.get("write")
            raise Unfit(unfit.what, f"write {hint}" if hint else unfit.fix) from None
        return fitted

    return structure_key


def _expect_container(value: object, kind: Any) -> object:
    """cattrs iterates over whatever it can: it would make a list of a word's letters."""
    origin = get_origin(kind)
    if origin is Mapping:
        return _expect_table(value)
    if origin is tuple and not isinstance(value, list | tuple):
        fix = f"write [{_shown(value)}]" if isinstance(value, str) else 'write one such as ["a"]'
        raise Unfit(f"{_shown(value)} is not a list", fix)
    return value


def _expect_table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f"{_shown(value)} is not a table", "write key = value lines under its [name]")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"{_shown(value)} is not text", "write it in quotes")
    if "\0" in value or not _is_unicode(value):
        raise Unfit(f"{_shown(value)} is not plain text", "remove the characters it cannot hold")
    return value


def _is_unicode(text: str) -> bool:
    """False for bytes of the environment that were not UTF-8: nothing could print them."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _whole_number(value: object) -> int:
    if type(value) is int and abs(value) <= _LARGEST:
        return value
    raise Unfit(f"{_shown(value)} is not a whole number", "write one such as 1")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise Unfit(f"{_shown(value)} is not a path", "write one in quotes")
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise Unfit(f"{_shown(value)} names no known user", "write the full path") from None


def _one_of(value: object, words: Any) -> str:
    choices = get_args(words)
    if not isinstance(value, str) or value not in choices:
        raise Unfit(f"{_shown(value)} is not known here", f"write {_listed(choices, 'or')}")
    return value


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _auto_or(structure: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda value, _: value if value == "auto" else structure(value)


def _only(structure: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda value, _: structure(value)


_strict.register_structure_hook_factory(attrs.has, _table_hook)
_strict.register_structure_hook_func(_is_literal, _one_of)
_strict.register_structure_hook(str, _only(_text))
_strict.register_structure_hook(int, _only(_whole_number))
_strict.register_structure_hook(Path, _only(_path))
_strict.register_structure_hook(Seconds, _only(_duration))
_strict.register_structure_hook(Bytes, _only(_size))
_strict.register_structure_hook(int | Literal["auto"], _auto_or(_whole_number))
_strict.register_structure_hook(Path | Literal["auto"], _auto_or(_path))


def _refusals(error: Exception, key: Key = ()) -> Iterator[tuple[Key, Unfit]]:
    """The leaves of cattrs' tree of exceptions, each with the key it belongs to."""
    match error:
        case cattrs.ClassValidationError():
            named, others = error.group_exceptions()
            for inner, note in named:
                yield from _refusals(inner, (*key, note.name))
            for inner in others:
                yield from _refusals(inner, key)
        case cattrs.IterableValidationError():
            for inner, place in error.group_exceptions()[0]:
                yield from _refusals(inner, (*key, place.index))
        case cattrs.ForbiddenExtraKeysError():
            known = tuple(attribute.name for attribute in attrs.fields(error.cl))
            for name in sorted(error.extra_fields):
                yield (
                    (*key, name),
                    Unfit("this is not a known key", _suggestion(name, known, most=1)),
                )
        case KeyError():
            yield key, Unfit("this is missing", f"add it to [{_dotted(key[:-1])}]")
        case Unfit():
            yield key, error
        case _:
            raise error


# What no single key can tell


def _contradictions(tree: _Tree) -> Iterator[tuple[Key, Unfit]]:
    """Checked on what was written, not on the schema, so that one bad key does not hide others."""
    yield from _bad_addresses(tree)
    yield from _bad_names(tree)
    yield from _shared_names(tree)
    yield from _unknown_models(tree)


def _bad_addresses(tree: _Tree) -> Iterator[tuple[Key, Unfit]]:
    if tree.get("server", "listen") in ([], ()):
        yield ("server", "listen"), Unfit("this lists no address", 'write one such as ":8080"')
    for key, text in tree.texts("server", "listen"):
        try:
            parse_address(text)
        except Unfit as unfit:
            yield key, unfit
    for key, prefix in tree.texts("server", "path_prefixes"):
        if not re.fullmatch(r"(/[^/\s?#]+)+", prefix):
            what = f"{_shown(prefix)} is not the beginning of a path"
            yield key, Unfit(what, 'write one such as "/llama", without a slash at its end')


def _bad_names(tree: _Tree) -> Iterator[tuple[Key, Unfit]]:
    models = tree.table("models")
    names: list[tuple[Key, str]] = [(("models", name), name) for name in models]
    for model in models:
        names.extend(tree.texts("models", model, "aliases"))
    for key, name in names:
        if not name or name != name.strip() or not name.isprintable() or set(name) & set("\"'\\"):
            fix = "write printable characters without quotes, backslashes or spaces around them"
            yield key, Unfit(f"{_shown(name)} cannot be a model's name", fix)
    for name in tree.table("engine", "env"):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            what = f"{_shown(name)} cannot be an environment variable's name"
            yield ("engine", "env", name), Unfit(what, "write letters, digits and underscores")


def _shared_names(tree: _Tree) -> Iterator[tuple[Key, Unfit]]:
    """Clients may write a model's name in any case, so names must differ by more than that."""
    owners: dict[str, str] = {}
    for name in tree.table("models"):
        owner = owners.setdefault(name.casefold(), name)
        if owner != name:
            yield ("models", name), Unfit(f'"{owner}" has the same name', "rename one of them")
    for name in tree.table("models"):
        for key, alias in tree.texts("models", name, "aliases"):
            owner = owners.setdefault(alias.casefold(), name)
            if owner != name:
                yield key, Unfit(f'"{alias}" already means the model "{owner}"', "choose another")


def _unknown_models(tree: _Tree) -> Iterator[tuple[Key, Unfit]]:
    models = tree.table("models")
    wanted = [*tree.texts("server", "default_model"), *tree.texts("pool", "preload")]
    for key, name in wanted:
        if name in models or (key == ("server", "default_model") and not name):
            continue
        fix = (
            _suggestion(name, models, most=3) if models else f"add [models.{_bare_or_quoted(name)}]"
        )
        yield key, Unfit(f"there is no model {_shown(name)}", fix)


# Paths


def _with_absolute_paths(config: Config, tree: _Tree) -> Config:
    def absolute(*key: str, path: Path) -> Path:
        return tree.origin(key).folder / path

    models = {
        name: attrs.evolve(model, path=absolute("models", name, "path", path=model.path))
        for name, model in config.models.items()
    }
    folders = {
        name: absolute("folders", name, path=path)
        for name, path in attrs.asdict(config.folders).items()
        if path != "auto"
    }
    return attrs.evolve(config, models=models, folders=attrs.evolve(config.folders, **folders))


# Writing


def _written_duration(seconds: Seconds) -> str | float:
    return f"{seconds:.0f}s" if float(seconds).is_integer() else seconds


def _written_size(size: Bytes) -> str | int:
    for unit, prefix in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{prefix}"
    return size


def _quoted(text: str) -> str:
    """A TOML string. The library's own writer breaks on a backslash before an x."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_strict.register_unstructure_hook(Seconds, _written_duration)
_strict.register_unstructure_hook(Bytes, _written_size)


# Words for messages


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value if len(value) <= 60 else f"{value[:60]}…")
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case int() if abs(value) > _LARGEST:
            return "a number of more than 64 bits"
        case _:
            return str(value)


def _dotted(key: Key) -> str:
    """The key as TOML writes it: `models."qwen2.5".aliases[0]`."""
    dotted = ""
    for step in key:
        dotted += f"[{step}]" if isinstance(step, int) else f".{_bare_or_quoted(step)}"
    return dotted.removeprefix(".")


def _bare_or_quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _suggestion(name: str, known: Iterable[str], most: int, section: str = "") -> str:
    """The names nearest to `name` in a section, or all of them: what all begin with says little."""
    words = {
        word.removeprefix(section).casefold(): word for word in known if word.startswith(section)
    }
    near = difflib.get_close_matches(name.removeprefix(section).casefold(), words, most)
    if near:
        return f"did you mean {_listed([words[word] for word in near], 'or')}?"
    return f"known are {_listed(sorted(words.values()), 'and')}"


def _listed(words: Iterable[str], last: str) -> str:
    *others, final = (f'"{word}"' for word in words)
    return f"{', '.join(others)} {last} {final}" if others else final
