"""Reads the header of a GGUF file: what a model is, and the shape of every tensor. Never a weight.

Vocabularies are skipped, not built: a header of 200,000 tokens takes tens of milliseconds and the
memory of one window. Every number is checked against the file's size and limits far beyond any real
model before it is used, so a hostile header is an error like a truncated one.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from attrs import evolve, field, frozen

from llamasup.files import open_regular

MAX_PAIRS: Final = 1 << 12
MAX_TENSORS: Final = 1 << 16
MAX_STRINGS: Final = 1 << 22
"""In the whole header: eight times as many as a vocabulary and its merges have."""
MAX_NAME: Final = 1 << 10
MAX_DIMENSIONS: Final = 4
LONGEST_KEPT_TEXT: Final = 1 << 10
LONGEST_TEXT: Final = 1 << 20
LONGEST_KEPT_ARRAY: Final = 1 << 10
"""Long enough for one value per layer."""

WINDOW: Final = 1 << 18


class BadModelFile(ValueError):
    """This is not a whole GGUF file; the message says what is wrong, and where."""


class BrokenModelFile(BadModelFile):
    """No engine can read this: it is no GGUF file, or only a part of one."""


@frozen
class TensorType:
    """How ggml packs elements: how many are in a block, and how many bytes a block has."""

    name: str
    elements: int
    size: int


TENSOR_TYPES: Final = {
    0: TensorType("f32", 1, 4),
    1: TensorType("f16", 1, 2),
    2: TensorType("q4_0", 32, 18),
    3: TensorType("q4_1", 32, 20),
    6: TensorType("q5_0", 32, 22),
    7: TensorType("q5_1", 32, 24),
    8: TensorType("q8_0", 32, 34),
    9: TensorType("q8_1", 32, 36),
    10: TensorType("q2_K", 256, 84),
    11: TensorType("q3_K", 256, 110),
    12: TensorType("q4_K", 256, 144),
    13: TensorType("q5_K", 256, 176),
    14: TensorType("q6_K", 256, 210),
    15: TensorType("q8_K", 256, 292),
    16: TensorType("iq2_xxs", 256, 66),
    17: TensorType("iq2_xs", 256, 74),
    18: TensorType("iq3_xxs", 256, 98),
    19: TensorType("iq1_s", 256, 50),
    20: TensorType("iq4_nl", 32, 18),
    21: TensorType("iq3_s", 256, 110),
    22: TensorType("iq2_s", 256, 82),
    23: TensorType("iq4_xs", 256, 136),
    24: TensorType("i8", 1, 1),
    25: TensorType("i16", 1, 2),
    26: TensorType("i32", 1, 4),
    27: TensorType("i64", 1, 8),
    28: TensorType("f64", 1, 8),
    29: TensorType("iq1_m", 256, 56),
    30: TensorType("bf16", 1, 2),
    34: TensorType("tq1_0", 256, 54),
    35: TensorType("tq2_0", 256, 66),
    39: TensorType("mxfp4", 32, 17),
    40: TensorType("nvfp4", 64, 36),
    41: TensorType("q1_0", 128, 18),
}
"""Types by their numbers in a file. The gaps are types that ggml has dropped."""


@frozen
class Elided:
    """A value that was skipped: an array with this many elements, or a text of this many bytes."""

    count: int


Number = bool | int | float
Value = Number | str | tuple[Number, ...] | Elided


@frozen
class Tensor:
    """One tensor's name, dimensions (the contiguous one first), type, and bytes in the file."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    size: int


@frozen
class Header:
    """What a GGUF file says about its model. `size` is that of the whole file."""

    architecture: str
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    size: int

    def own(self, key: str) -> Value | None:
        """A value of the model's own architecture: `own("block_count")`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    @property
    def trained_context(self) -> int | None:
        """How much context the model was trained on, if the file says so."""
        context = self.own("context_length")
        return context if type(context) is int and context > 0 else None


def header_of(path: Path) -> Header:
    """Read the header of a file. Raises BadModelFile, or OSError if it cannot be read."""
    with open_regular(path) as file:
        return read_header(file)


def text_of(path: Path, wanted: str) -> str:
    """The text of this key in a file's header, even a long one; "" if there is none. Raises
    BadModelFile, or OSError if the file cannot be read."""
    with open_regular(path) as file:
        reader = _Reader(file)
        _, pair_count = _opening(reader)
        for _ in range(pair_count):
            if reader.name("a key") == wanted:
                is_text = reader.number(_UINT32) == _STRING
                text = reader.text(LONGEST_TEXT) if is_text else ""
                return text if isinstance(text, str) else ""
            _value(reader, wanted)
    return ""


def joined(parts: Sequence[Header]) -> Header:
    """The header of a model that is split into files: only the first one describes the model, but
    all hold tensors."""
    return evolve(
        parts[0],
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        size=sum(part.size for part in parts),
    )


def read_header(file: BinaryIO) -> Header:
    """Read a header from a seekable file. Raises BadModelFile."""
    reader = _Reader(file)
    tensor_count, pair_count = _opening(reader)
    metadata: dict[str, Value] = {}
    for _ in range(pair_count):
        key = reader.name("a key")
        if key in metadata:
            raise reader.bad(f"the key {key} occurs twice")
        metadata[key] = _value(reader, key)
    placed = [_tensor(reader) for _ in range(tensor_count)]
    _check_placement(reader, placed, _alignment(reader, metadata))
    architecture = metadata.get("general.architecture", "")
    if not isinstance(architecture, str):
        raise reader.bad("general.architecture is no text")
    return Header(architecture, metadata, tuple(tensor for tensor, _ in placed), reader.size)


def _opening(reader: _Reader) -> tuple[int, int]:
    magic = reader.take(4)
    if magic != b"GGUF":
        raise reader.broken(f"it begins with {magic!r}, not with {b'GGUF'!r}")
    version = reader.number(_UINT32)
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        what = "is big-endian" if swapped in (2, 3) else f"has version {version}"
        raise reader.bad(f"it {what}; versions 2 and 3, little-endian, can be read")
    tensor_count, pair_count = reader.number(_UINT64), reader.number(_UINT64)
    if tensor_count > MAX_TENSORS or pair_count > MAX_PAIRS:
        raise reader.bad(f"it claims {tensor_count} tensors and {pair_count} pairs of metadata")
    return tensor_count, pair_count


def _value(reader: _Reader, key: str) -> Value:
    code = reader.number(_UINT32)
    if code == _STRING:
        return reader.text()
    if code == _ARRAY:
        return _array(reader, key)
    return reader.plain(_plain_type(reader, code, key), 1)[0]


def _array(reader: _Reader, key: str) -> Value:
    code, count = reader.number(_UINT32), reader.number(_UINT64)
    if code == _STRING:
        reader.skip_strings(count, f"{key} claims {count} strings")
        return Elided(count)
    number = _plain_type(reader, code, key)
    if count <= LONGEST_KEPT_ARRAY:
        return reader.plain(number, count)
    reader.skip(number.size * count, f"{key}, an array of {count},")
    return Elided(count)


def _plain_type(reader: _Reader, code: int, key: str) -> struct.Struct:
    if code not in _PLAIN_TYPES:
        raise reader.bad(f"the value of {key} has the unknown type {code}")
    return _PLAIN_TYPES[code]


def _tensor(reader: _Reader) -> tuple[Tensor, int]:
    name = reader.name("the name of a tensor")
    rank = reader.number(_UINT32)
    if rank > MAX_DIMENSIONS:
        raise reader.bad(f"the tensor {name} claims {rank} dimensions")
    shape = tuple(reader.number(_UINT64) for _ in range(rank))
    code, offset = reader.number(_UINT32), reader.number(_UINT64)
    if code not in TENSOR_TYPES:
        raise reader.bad(f"the tensor {name} has the unknown type {code}")
    kind = TENSOR_TYPES[code]
    if rank and shape[0] % kind.elements:
        raise reader.bad(f"rows of {shape[0]} in {name} are no whole blocks of {kind.name}")
    size = math.prod(shape) // kind.elements * kind.size
    # Most models have tensors of the same names, and many headers may be remembered.
    return Tensor(sys.intern(name), shape, kind, size), offset


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise reader.bad(f"general.alignment is {alignment}, which is no power of two")
    return alignment


def _check_placement(reader: _Reader, placed: Sequence[tuple[Tensor, int]], alignment: int) -> None:
    """Check that every tensor lies in the file: an unfinished download fails here."""
    begin = reader.position + -reader.position % alignment
    for tensor, offset in placed:
        end = begin + offset + tensor.size
        if end > reader.size:
            raise BrokenModelFile(
                f"it is cut off: {tensor.name} would end at byte {end}, the file at {reader.size}"
            )


_UINT32 = struct.Struct("<I")
_UINT64 = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_PLAIN_TYPES: Final = {
    code: struct.Struct(f"<{letter}")
    for code, letter in {**dict(enumerate("BbHhIif?")), 10: "Q", 11: "q", 12: "d"}.items()
}


class _Reader:
    """A window that slides over a file, and never beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = file.seek(0, os.SEEK_END)
        self._file = file
        self._window = b""
        self._begin = 0
        self._at = 0
        self._strings_left = MAX_STRINGS

    @property
    def position(self) -> int:
        return self._begin + self._at

    def bad(self, what: str) -> BadModelFile:
        return BadModelFile(f"{what} (before byte {self.position})")

    def broken(self, what: str) -> BrokenModelFile:
        return BrokenModelFile(f"{what} (before byte {self.position})")

    def take(self, count: int) -> bytes:
        self._need(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def number(self, kind: struct.Struct) -> int:
        (value,) = kind.unpack(self.take(kind.size))
        return int(value)

    def plain(self, kind: struct.Struct, count: int) -> tuple[Number, ...]:
        return tuple(value for (value,) in kind.iter_unpack(self.take(kind.size * count)))

    def name(self, what: str) -> str:
        length = self.number(_UINT64)
        if length > MAX_NAME:
            raise self.bad(f"{what} claims to be {length} bytes long")
        return self._decoded(length)

    def text(self, longest: int = LONGEST_KEPT_TEXT) -> str | Elided:
        length = self.number(_UINT64)
        if length <= longest:
            return self._decoded(length)
        self.skip(length, f"a text of {length} bytes")
        return Elided(length)

    def _decoded(self, length: int) -> str:
        return self.take(length).decode(errors="replace")

    def skip(self, count: int, what: str) -> None:
        if self.position + count > self.size:
            raise self.broken(f"it is cut off: {what} would end beyond the file's {self.size}")
        self._at += count

    def skip_strings(self, count: int, what: str) -> None:
        """Skip strings without making any. Large headers spend nearly all their time in this
        loop."""
        self._strings_left -= count
        if self._strings_left < 0:
            raise self.bad(what)
        length_at = _UINT64.unpack_from
        while count:
            self._need(_UINT64.size)
            window, at = self._window, self._at
            last = len(window) - _UINT64.size
            while count and at <= last:
                at += _UINT64.size + length_at(window, at)[0]
                count -= 1
            self._at = at
        self.skip(0, "an array of strings")

    def _need(self, count: int) -> None:
        """Make sure that the window holds this many bytes, from here on."""
        if self._at + count <= len(self._window):
            return
        if self.position + count > self.size:
            raise self.broken(f"it is cut off: {self.size} bytes are not the whole header")
        self._begin, self._at = self.position, 0
        self._file.seek(self._begin)
        self._window = self._file.read(max(WINDOW, count))
        if len(self._window) < count:
            raise self.bad("it became shorter while it was read")
