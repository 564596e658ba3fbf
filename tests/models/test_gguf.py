"""Headers are read whole, quickly and in little memory; anything else is an error, never a hang."""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamasup.models.gguf import (
    MAX_PAIRS,
    MAX_STRINGS,
    MAX_TENSORS,
    TENSOR_TYPES,
    BadModelFile,
    Elided,
    Header,
    header_of,
    joined,
    read_header,
    text_of,
)
from tests.harness import steps
from tests.models.shapes import F16, SHAPES, Shape, described, gguf_head, llama, string

ARCHITECTURE = {"general.architecture": "llama"}


def read(content: bytes) -> Header:
    return read_header(io.BytesIO(content))


def refusal(content: bytes) -> str:
    with pytest.raises(BadModelFile) as refused:
        read(content)
    return str(refused.value)


def opening(tensors: int = 0, pairs: int = 0, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, pairs)


def pair(key: str, code: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", code) + value


def array(key: str, code: int, count: int, content: bytes = b"") -> bytes:
    return pair(key, 9, struct.pack("<IQ", code, count) + content)


# What is read


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_tensor_of_a_model_is_read_with_its_bytes(shape: Shape, tmp_path: Path) -> None:
    header = header_of(shape.write(tmp_path))
    assert header.architecture == shape.architecture
    assert {t.name: (t.shape, t.size) for t in header.tensors} == {
        name: (dimensions, shape.size_of(dimensions)) for name, dimensions in shape.tensors.items()
    }
    assert header.own("block_count") == shape.metadata["block_count"]


def test_values_of_all_kinds_are_read() -> None:
    values = {**ARCHITECTURE, "a": True, "b": 7, "c": 0.5, "d": "text", "e": [1, -2], "f": [True]}
    assert read(gguf_head(values, [])).metadata == values | {"e": (1, -2), "f": (True,)}


@pytest.mark.parametrize(
    ("code", "letter", "value"),
    [
        *[(0, "B", 200), (1, "b", -5), (2, "H", 60000), (3, "h", -300), (4, "I", 1 << 31)],
        *[(5, "i", -9), (6, "f", 0.25), (7, "?", True), (10, "Q", 1 << 63), (11, "q", -1)],
        (12, "d", 0.1),
    ],
)
def test_numbers_of_every_width_are_read(code: int, letter: str, value: object) -> None:
    content = opening(pairs=1) + pair("x", code, struct.pack(f"<{letter}", value))
    assert read(content).metadata == {"x": value}


def test_vocabularies_and_long_texts_are_counted_and_not_built() -> None:
    values = {"tokens": ["a", "bc", ""], "scores": [0.0] * 5000, "template": "x" * 5000}
    assert read(gguf_head(values, [])).metadata == {
        "tokens": Elided(3),
        "scores": Elided(5000),
        "template": Elided(5000),
    }


def test_each_of_many_tokens_takes_a_few_steps_and_their_scores_none() -> None:
    tokens = [f"token{number}" for number in range(20_000)]
    content = gguf_head({"tokens": tokens, "merges": tokens, "scores": [0.0] * 20_000}, [])
    assert read(content).metadata["tokens"] == Elided(20_000)
    assert steps(lambda: read(content)) < 10 * 2 * 20_000


def test_version_2_is_read_like_version_3() -> None:
    assert read(opening(version=2)).tensors == ()


def test_a_split_model_has_the_tensors_of_all_its_parts() -> None:
    first, second = (
        gguf_head({"split.no": number, **ARCHITECTURE}, [described(name, (32, 2), F16, 0)])
        for number, name in enumerate(("token_embd.weight", "output.weight"))
    )
    weights = bytes(128)
    whole = joined([read(first + weights), read(second + weights)])
    assert [tensor.name for tensor in whole.tensors] == ["token_embd.weight", "output.weight"]
    assert whole.size == len(first) + len(second) + 2 * len(weights)
    assert whole.metadata["split.no"] == 0


# What is refused


def test_a_header_cut_anywhere_is_an_error() -> None:
    whole = Shape("x", "llama", {"block_count": 1, "list": [1, 2]}, {"t": (8,)}).head()
    assert read(whole + bytes(32)).tensors[0].size == 32
    for length in range(len(whole)):
        assert refusal(whole[:length])


def test_a_download_that_broke_off_names_the_tensor_that_is_missing() -> None:
    assert "cut off: token_embd.weight would end at byte" in refusal(llama().head())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not the whole header"),
        (b"PK\3\4" + bytes(32), r"begins with b'PK\x03\x04'"),
        (opening(version=1), "has version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "is big-endian"),
        (opening(tensors=MAX_TENSORS + 1), "65537 tensors"),
        (opening(pairs=MAX_PAIRS + 1), "4097 pairs"),
        (opening(pairs=1) + struct.pack("<Q", 1 << 62), "a key claims to be"),
        (opening(pairs=1) + pair("x", 13, b""), "the value of x has the unknown type 13"),
        (opening(pairs=1) + pair("x", 8, struct.pack("<Q", 1 << 63)), "a text of"),
        (opening(pairs=1) + array("x", 9, 1), "the value of x has the unknown type 9"),
        (opening(pairs=1) + array("x", 4, 1 << 60), "an array of 1152921504606846976"),
        (opening(pairs=1) + array("x", 4, 1000), "not the whole header"),
        (opening(pairs=1) + array("x", 8, 1 << 63), "x claims 9223372036854775808 strings"),
        (opening(pairs=1) + array("x", 8, 1, struct.pack("<Q", 9)), "an array of strings"),
        (opening(pairs=2) + 2 * pair("x", 7, b"\1"), "the key x occurs twice"),
        (opening(pairs=1) + pair("general.architecture", 7, b"\1"), "is no text"),
        (opening(pairs=1) + pair("general.alignment", 4, struct.pack("<I", 48)), "power of two"),
        (opening(pairs=1) + pair("general.alignment", 4, struct.pack("<I", 0)), "power of two"),
        (opening(tensors=1) + string("t") + struct.pack("<I", 5), "t claims 5 dimensions"),
        (opening(tensors=1) + described("t", (8,), 4, 0), "t has the unknown type 4"),
        (opening(tensors=1) + described("t", (48,), 8, 0), "no whole blocks of q8_0"),
        (opening(tensors=1) + described("t", (1 << 63,) * 4, 0, 0), "t would end at byte"),
        (opening(tensors=1) + described("t", (1,), 0, 1 << 63), "t would end at byte"),
    ],
)
def test_a_header_that_cannot_be_is_refused_with_what_is_wrong(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_a_hostile_header_costs_little_memory_and_time() -> None:
    strings = MAX_STRINGS // 16
    empty = array("x", 8, strings, bytes(8 * strings))
    content = opening(pairs=MAX_PAIRS) + empty + array("y", 8, MAX_STRINGS, bytes(8))
    tracemalloc.start()
    assert "y claims 4194304 strings" in refusal(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert steps(lambda: refusal(content)) < 10 * strings


SMALL = Shape("x", "llama", {"block_count": 1, "list": [1, 2], "text": "a"}, {"t": (8,)})


@settings(max_examples=300)
@given(st.integers(0, len(SMALL.head()) - 1), st.binary(min_size=1, max_size=8))
@example(at=8, replacement=b"\xff" * 8)
@example(at=16, replacement=b"\xff" * 8)
def test_whatever_bytes_are_changed_a_header_is_read_or_refused(
    at: int, replacement: bytes
) -> None:
    content = SMALL.head() + bytes(32)
    changed = content[:at] + replacement + content[at + len(replacement) :]
    with suppress(BadModelFile):
        assert all(tensor.size <= len(changed) for tensor in read(changed).tensors)


def test_types_have_the_names_that_llama_cpp_gives_them() -> None:
    assert TENSOR_TYPES[8].name == "q8_0"
    assert len({kind.name for kind in TENSOR_TYPES.values()}) == len(TENSOR_TYPES)


def test_a_text_is_read_whole_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    template = "{{ messages }}" * 1000
    path.write_bytes(gguf_head({**ARCHITECTURE, "count": 7, "template": template}, []))
    assert text_of(path, "template") == template
    assert text_of(path, "general.architecture") == "llama"
    assert text_of(path, "count") == ""
    assert text_of(path, "nothing") == ""
