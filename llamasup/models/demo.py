"""The demo model: a llama of 350 KB that recites one fixed text, for a first run without downloads.

It is a real GGUF file that the real llama.cpp loads, so all but the answers is as with any model.
All weights of its only layer are zero, so the last token's own embedding, a random row of signs,
reaches the output. The output row of every token is the embedding of its predecessor: no other row
has a similar dot product, so the chain is recited at any temperature. All tokens outside the chain
share one embedding, the predecessor of the first piece, so every prompt starts the recital.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import attrs

from llamasup.config.schema import Config, ModelSettings
from llamasup.errors import OperatorError

DEMO_TEXT = """\
Hello from llamasup! You are reading its demo model, a tiny file that recites this text whatever \
you ask. The engine behind it is real, though: llama.cpp loaded that file and sent every word as \
one token through llamasup's port. To serve a model of your own, run

    llamasup serve --model path/to/model.gguf

or name it in llamasup.toml:

    [models.my-model]
    path = "path/to/model.gguf"

and ask for "my-model". Any program that speaks the OpenAI API can talk to this address."""

DEMO = "demo"
"""The demo model's name for clients."""

_DEMO_CONTEXT = 32768
_CONTEXT_SERVED = 4096

# A chat's prompt ends with <|go|>, which starts the recital, like every prompt. If the last message
# is the assistant's, the engine puts it behind that, and the recital goes on from there.
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ message.content }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|go|>{%- endif -%}"
)


def with_demo(config: Config, cache: Path) -> Config:
    """`config`, with the demo model added if it has no model, and no folders or endpoints to
    find one.

    Raises OperatorError if the demo model cannot be written.
    """
    if config.models or config.discover.folders or config.endpoints:
        return config
    demo = ModelSettings(path=ensure_demo(cache), context_size=_CONTEXT_SERVED)
    return attrs.evolve(config, models={DEMO: demo})


def ensure_demo(folder: Path) -> Path:
    """Write the demo model to `folder` unless it is there, and return its path.

    Its name has a hash of the content, so a file of another version is never mistaken for this one.
    The file appears whole or not at all. Raises `OperatorError` if it cannot be written.
    """
    model = reciting_model(unique_phrases(DEMO_TEXT), context=_DEMO_CONTEXT, name="llamasup demo")
    path = folder / f"demo-{hashlib.sha256(model).hexdigest()[:12]}.gguf"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _write_whole(path, model)
    except OSError as error:
        raise OperatorError(
            f"cannot write the demo model to {folder}: {error.strerror or error}; "
            "set folders.cache to a folder that can be written and has room"
        ) from error
    return path


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unique_phrases(text: str) -> list[str]:
    """Split `text` into pieces that occur only once: words, each with the space before it.

    A word that occurred before is joined with the next one, or at the end of the text with the one
    before it. `"".join` gives the text back.
    """
    phrases: dict[str, None] = {}
    phrase = ""
    for word in re.findall(r"\s*\S+|\s+$", text):
        phrase += word
        if phrase not in phrases:
            phrases[phrase] = None
            phrase = ""
    while phrase in phrases:
        phrase = phrases.popitem()[0] + phrase
    return [*phrases, phrase] if phrase else [*phrases]


class _TokenType(IntEnum):
    """How the tokenizer treats a token."""

    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    BYTE = 6


_SPECIAL_TOKENS = {
    "<unk>": _TokenType.UNKNOWN,
    "<s>": _TokenType.CONTROL,
    "</s>": _TokenType.CONTROL,
    "<|go|>": _TokenType.CONTROL,
}
_UNKNOWN, _BEGIN, _END = (list(_SPECIAL_TOKENS).index(token) for token in ("<unk>", "<s>", "</s>"))
_PROMPT_TOKENS = _SPECIAL_TOKENS | {f"<0x{byte:02X}>": _TokenType.BYTE for byte in range(256)}

_WIDTH = 128  # of an embedding: two random rows of signs as wide as this have little in common
_HIDDEN = 32  # width of the feed-forward network, which only has to exist


def reciting_model(
    chain: Sequence[str],
    *,
    context: int,
    name: str,
    hidden: int = _HIDDEN,
    template: str = _CHAT_TEMPLATE,
) -> bytes:
    """A GGUF file of a llama that answers every prompt with the pieces of `chain`, and ends.

    With a wider feed-forward network (`hidden`) it says the same, but as slowly as a large model.

    Each piece is one token, and no two may be equal; `▁` stands for a space. If a prompt ends with
    a piece, as it does when an assistant's message is continued, the recital goes on after it.
    """
    # User-defined tokens are found in a prompt as they are. Normal ones would have to be merged
    # from characters, which needs all their beginnings as tokens, too. The search takes time in
    # proportion to pieces times prompt: nothing for a text, 0.1 s for 3000 pieces and 24 KB.
    pieces = dict.fromkeys((piece.replace("▁", " ") for piece in chain), _TokenType.USER_DEFINED)
    if len(pieces) != len(chain) or pieces.keys() & _PROMPT_TOKENS.keys():
        raise ValueError("the pieces of a chain must differ from each other and from <s> and such")
    tokens = _PROMPT_TOKENS | pieces

    metadata = {
        "general.architecture": _text("llama"),
        "general.name": _text(name),
        "llama.context_length": _uint32(context),
        "llama.embedding_length": _uint32(_WIDTH),
        "llama.block_count": _uint32(1),
        "llama.feed_forward_length": _uint32(hidden),
        "llama.attention.head_count": _uint32(1),
        "llama.attention.head_count_kv": _uint32(1),
        "llama.attention.layer_norm_rms_epsilon": _float32(1e-5),
        "llama.rope.dimension_count": _uint32(_WIDTH),
        "tokenizer.ggml.model": _text("llama"),
        "tokenizer.ggml.tokens": _texts(tokens),
        "tokenizer.ggml.scores": _float32s([0.0] * len(tokens)),
        "tokenizer.ggml.token_type": _int32s(list(tokens.values())),
        "tokenizer.ggml.unknown_token_id": _uint32(_UNKNOWN),
        "tokenizer.ggml.bos_token_id": _uint32(_BEGIN),
        "tokenizer.ggml.eos_token_id": _uint32(_END),
        "tokenizer.chat_template": _text(template),
    }
    return _gguf(metadata, _weights(len(pieces), hidden))


def _weights(pieces: int, hidden: int) -> list[_Tensor]:
    rows = _sign_rows(1 + pieces)
    embeddings = [rows[0]] * len(_PROMPT_TOKENS) + rows[1:]
    outputs = [bytes(len(rows[0]))] * len(_PROMPT_TOKENS) + rows[:-1]
    outputs[_END] = rows[-1]

    ones = struct.pack("<f", 1.0) * _WIDTH
    square, oblong = bytes(2 * _WIDTH * _WIDTH), bytes(2 * _WIDTH * hidden)
    return [
        _Tensor("token_embd.weight", (_WIDTH, len(embeddings)), b"".join(embeddings)),
        _Tensor("output.weight", (_WIDTH, len(outputs)), b"".join(outputs)),
        _Tensor("output_norm.weight", (_WIDTH,), ones),
        _Tensor("blk.0.attn_norm.weight", (_WIDTH,), ones),
        _Tensor("blk.0.attn_q.weight", (_WIDTH, _WIDTH), square),
        _Tensor("blk.0.attn_k.weight", (_WIDTH, _WIDTH), square),
        _Tensor("blk.0.attn_v.weight", (_WIDTH, _WIDTH), square),
        _Tensor("blk.0.attn_output.weight", (_WIDTH, _WIDTH), square),
        _Tensor("blk.0.ffn_norm.weight", (_WIDTH,), ones),
        _Tensor("blk.0.ffn_gate.weight", (_WIDTH, hidden), oblong),
        _Tensor("blk.0.ffn_up.weight", (_WIDTH, hidden), oblong),
        _Tensor("blk.0.ffn_down.weight", (hidden, _WIDTH), oblong),
    ]


def _sign_rows(count: int) -> list[bytes]:
    """Rows of random +1 and -1 in half precision, the same ones at every call."""
    signs = random.Random(1)
    plus, minus = struct.pack("<e", 1.0), struct.pack("<e", -1.0)
    return [
        f"{signs.getrandbits(_WIDTH):0{_WIDTH}b}".encode().replace(b"0", plus).replace(b"1", minus)
        for _ in range(count)
    ]


# What follows writes GGUF 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_F32, _F16 = 0, 1
_ALIGNMENT = 32


class _Tensor(NamedTuple):
    """A vector in single or a matrix in half precision."""

    name: str
    shape: tuple[int, ...]
    data: bytes

    def described(self, offset: int) -> bytes:
        rank = len(self.shape)
        kind = _F32 if rank == 1 else _F16
        return _string(self.name) + struct.pack(f"<I{rank}QIQ", rank, *self.shape, kind, offset)


def _gguf(metadata: Mapping[str, bytes], tensors: Sequence[_Tensor]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_string(key) + value for key, value in metadata.items())
    data = b""
    for tensor in tensors:
        head += tensor.described(len(data))
        data += _aligned(tensor.data)
    return _aligned(head) + data


def _aligned(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _text(value: str) -> bytes:
    return struct.pack("<I", _STRING) + _string(value)


def _texts(values: Collection[str]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_string, values))


def _uint32(value: int) -> bytes:
    return struct.pack("<II", _UINT32, value)


def _int32s(values: Sequence[int]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", _ARRAY, _INT32, len(values), *values)


def _float32(value: float) -> bytes:
    return struct.pack("<If", _FLOAT32, value)


def _float32s(values: Sequence[float]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}f", _ARRAY, _FLOAT32, len(values), *values)
