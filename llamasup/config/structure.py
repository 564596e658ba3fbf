"""Makes a `Config` of plain tables, strictly: values of a wrong type are refused, never converted.

`strict` is the cattrs converter, in both directions; `refusals` says what it refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from llamasup.config.moments import read_moment, write_moment
from llamasup.config.problems import Key, Refusal, Unfit
from llamasup.config.schema import (
    AnyModel,
    Bytes,
    Memory,
    ModelSettings,
    Moment,
    Params,
    Seconds,
    ServerSettings,
    new_names,
)
from llamasup.config.units import read_duration, read_size, write_duration, write_size
from llamasup.config.wording import dotted, listed, shown, suggestion

strict = cattrs.Converter(forbid_extra_keys=True)


def refusals(error: BaseException, key: Key = ()) -> Iterator[Refusal]:
    """The leaves of cattrs' tree of exceptions, each with the key it belongs to."""
    match error:
        case cattrs.ClassValidationError():
            named, others = error.group_exceptions()
            for inner, note in named:
                yield from refusals(inner, (*key, note.name))
            for inner in others:
                yield from refusals(inner, key)
        case cattrs.IterableValidationError():
            for inner, place in error.group_exceptions()[0]:
                yield from refusals(inner, (*key, place.index))
        case cattrs.ForbiddenExtraKeysError():
            for name in sorted(error.extra_fields):
                yield (*key, name), _of_another_kind(error.cl, name) or _unknown(error.cl, name)
        case KeyError():
            otherwise = ", or a command" if key[-1] == "path" else ""
            yield key, Unfit("this is missing", f"add it to {_heading(key[:-1])}{otherwise}")
        case Unfit():
            yield key, error
        case _:
            raise error


def _unknown(table: type[Any], name: str) -> Unfit:
    renamed = new_names(table)
    known = [attribute.name for attribute in attrs.fields(table)]
    fix = f"it is called {renamed[name]} now" if name in renamed else suggestion(name, known)
    return Unfit("this is not a known key", fix)


# Tables and their keys


def _table_hook(table: type[Any]) -> Callable[[Any, Any], Any]:
    overrides = {
        attribute.name: override(struct_hook=_key_hook(attribute))
        for attribute in attrs.fields(table)
    }
    structure = make_dict_structure_fn(table, strict, **overrides)  # type: ignore[arg-type]
    return lambda value, kind: structure(_expect_table(value), kind)


def _key_hook(attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Structure and validate each key alone: attrs would stop at the first failure of a class."""

    def structure_key(value: object, kind: Any) -> Any:
        if attribute.converter is not None and isinstance(value, str):
            value = [value]
        try:
            fitted = strict.structure(_expect_container(value, kind), kind)
            if attribute.validator is not None:
                attribute.validator(None, attribute, fitted)
        except Unfit as unfit:
            hint = attribute.metadata.get("write")
            raise Unfit(unfit.what, f"write {hint}" if hint else unfit.fix) from None
        return fitted

    return structure_key


def _heading(key: Key) -> str:
    """A table's heading; of one in a list, also which it is."""
    if key and isinstance(key[-1], int):
        return f"[[{dotted(key[:-1])}]] number {key[-1] + 1}"
    return f"[{dotted(key)}]"


def _expect_container(value: object, kind: Any) -> object:
    """Refuse what is no list or table: cattrs would make a list of letters from a word."""
    origin = get_origin(kind)
    if origin is Mapping:
        return _expect_table(value)
    if origin is tuple and not isinstance(value, list | tuple):
        fix = f"write [{shown(value)}]" if isinstance(value, str) else 'write one such as ["a"]'
        if isinstance(value, dict) and attrs.has(get_args(kind)[0]):
            fix = "write its heading in double brackets, such as [[endpoints]]"
        raise Unfit(f"{shown(value)} is not a list", fix)
    return value


def _expect_table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(f"{shown(value)} is not a table", "write key = value lines under its [name]")
    return value


# Models


def _model(value: object, _: Any) -> AnyModel:
    """A model with a file, or one with a server of its own."""
    table = _expect_table(value)
    if "path" in table and "command" in table:
        raise Unfit("it has a path and a command", "write only one of them")
    if "command" in table:
        return strict.structure(table, ServerSettings)
    return strict.structure(table, ModelSettings)


def _of_another_kind(table: type[Any], name: str) -> Unfit | None:
    """The refusal of a key that only the other kind of model has."""
    if table is ServerSettings and name in attrs.fields_dict(ModelSettings):
        return Unfit("this is for models with a path, and this one has a command", "remove it")
    if table is ModelSettings and name in attrs.fields_dict(ServerSettings):
        return Unfit("this is for models with a command, and this one has a path", "remove it")
    return None


# Single values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is not text", "write it in quotes")
    if "\0" in value or not _is_unicode(value):
        raise Unfit(f"{shown(value)} is not plain text", "remove the characters it cannot hold")
    return value


def _is_unicode(text: str) -> bool:
    """Is it valid text? Environment variables may hold bytes that are not, and cannot be
    printed."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _whole_number(value: object) -> int:
    if type(value) is int and value.bit_length() <= 63:
        return value
    raise Unfit(f"{shown(value)} is not a whole number", "write one such as 1")


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Unfit(f"{shown(value)} is neither true nor false", "write true or false")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise Unfit(f"{shown(value)} is not a path", "write one in quotes")
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise Unfit(f"{shown(value)} names no known user", "write the full path") from None


def _params(value: object) -> Params:
    """Members of a JSON object. Tables may hold more than JSON can: dates, and numbers without
    end."""
    for inner in _inner(_expect_table(value)):
        if isinstance(inner, float) and not math.isfinite(inner):
            raise Unfit(f"{inner} cannot be written in JSON", "write a finite number")
        if not isinstance(inner, str | int | float):
            raise Unfit(f"{shown(inner)} cannot be written in JSON", "write it in quotes")
        if isinstance(inner, str):
            _text(inner)
    return Params(_expect_table(value))


def _inner(value: object) -> Iterator[object]:
    """All single values within lists and tables, and the names in tables."""
    match value:
        case dict():
            for name, inner in value.items():
                yield name
                yield from _inner(inner)
        case list() | tuple():
            for inner in value:
                yield from _inner(inner)
        case _:
            yield value


def _one_of(value: object, literal: Any) -> object:
    choices = get_args(literal)
    if (type(value), value) not in [(type(choice), choice) for choice in choices]:
        raise Unfit(f"{shown(value)} is not known here", f"write {listed(choices, 'or')}")
    return value


def _is_literal(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is Literal


def _memory(value: object) -> Memory:
    if value == "auto":
        return "auto"
    if not isinstance(value, dict):
        return read_size(value)
    return {_device(name): read_size(size) for name, size in value.items()}


def _device(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise Unfit(f"{shown(name)} is no device", 'write "host", or one of the engine\'s: "CUDA0"')
    return name


def _written_memory(memory: Memory) -> object:
    if isinstance(memory, Mapping):
        return {device: write_size(size) for device, size in memory.items()}
    return memory if memory == "auto" else write_size(memory)


def _only(fit: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda value, _: fit(value)


def _auto_or(fit: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda value, _: value if value == "auto" else fit(value)


def _none_or(fit: Callable[[object], Any]) -> Callable[[object, Any], Any]:
    return lambda value, _: value if value == "none" else fit(value)


strict.register_structure_hook_factory(attrs.has, _table_hook)
strict.register_structure_hook_func(_is_literal, _one_of)
strict.register_structure_hook(AnyModel, _model)
strict.register_unstructure_hook(AnyModel, lambda value: strict.unstructure(value))
strict.register_structure_hook(Memory, _only(_memory))
strict.register_unstructure_hook(Memory, _written_memory)
strict.register_structure_hook(str, _only(_text))
strict.register_structure_hook(int, _only(_whole_number))
strict.register_structure_hook(bool, _only(_truth))
strict.register_structure_hook(Path, _only(_path))
strict.register_structure_hook(Seconds, _only(read_duration))
strict.register_structure_hook(Bytes, _only(read_size))
strict.register_structure_hook(Params, _only(_params))
strict.register_structure_hook(Moment, _only(read_moment))
strict.register_structure_hook(int | Literal["auto"], _auto_or(_whole_number))
strict.register_structure_hook(Path | Literal["auto"], _auto_or(_path))
strict.register_structure_hook(Path | Literal["none"], _none_or(_path))
strict.register_structure_hook(Bytes | Literal["auto"], _auto_or(read_size))
strict.register_structure_hook(Seconds | Literal["auto"], _auto_or(read_duration))
strict.register_unstructure_hook(
    Seconds | Literal["auto"], lambda value: value if value == "auto" else write_duration(value)
)
strict.register_unstructure_hook(
    Bytes | Literal["auto"], lambda value: value if value == "auto" else write_size(value)
)
strict.register_unstructure_hook(Seconds, write_duration)
strict.register_unstructure_hook(Bytes, write_size)
strict.register_unstructure_hook(Params, dict)
strict.register_unstructure_hook(Moment, write_moment)
