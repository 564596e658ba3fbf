"""What people and clients want to know of a model, from its header. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from llamasup.models.gguf import Header


@frozen
class Facts:
    """What is kept of a header for listings: there may be thousands."""

    architecture: str
    parameters: int
    """How many weights it has."""

    quantization: str
    """How most of them are packed, as "Q4_K_M"; "" if it has none."""

    trained_context: int | None
    size: int
    """Bytes of its files."""

    modified: float
    """When its first file was changed, in seconds since 1970."""


def facts_of(header: Header, modified: float) -> Facts:
    """The facts that a header tells, of a file that was changed then."""
    return Facts(
        header.architecture,
        sum(math.prod(tensor.shape) for tensor in header.tensors),
        _quantization(header),
        header.trained_context,
        header.size,
        modified,
    )


_FILE_TYPES: Final[Mapping[int, str]] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}
"""The mixtures of types by llama.cpp's numbers."""


def _quantization(header: Header) -> str:
    """The mixture that the file says it is; else the type that takes the most bytes."""
    kind = header.metadata.get("general.file_type")
    if type(kind) is int and kind in _FILE_TYPES:
        return _FILE_TYPES[kind]
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type.name] += tensor.size
    return max(sizes, key=sizes.__getitem__).upper() if sizes else ""


def in_words(parameters: int) -> str:
    """`"7.6B"`, `"494.03M"`, `"12.50K"`: a number of weights, as people write it."""
    if parameters >= 1_000_000_000:
        return f"{parameters / 1e9:.1f}B"
    if parameters >= 1_000_000:
        return f"{parameters / 1e6:.2f}M"
    if parameters >= 1_000:
        return f"{parameters / 1e3:.2f}K"
    return str(parameters)
