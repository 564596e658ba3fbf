"""Models of well-known shapes, made by hand: whole headers, and a hole where the weights would be.

An engine that only asks itself how much memory it would need never reads the hole, so a model of
60 GB costs as much disk and time as one of 60 KB. The writer is independent of what it tests.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

Dimensions = tuple[int, ...]
Value = str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]

F32, F16 = 0, 1
BLOCKS = {F32: (1, 4), F16: (1, 2)}
"""ggml's types: elements in a block, and its bytes."""

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
VOCABULARY = len(TOKENS)


@frozen
class Shape:
    """A model without its weights. `metadata` and the tensors' names are as the file has them."""

    name: str
    architecture: str
    metadata: Mapping[str, Value]
    tensors: Mapping[str, Dimensions] = field(repr=False)
    matrices: int = F16
    """The type of everything with more than one dimension."""
    blocks: Mapping[int, tuple[int, int]] = field(default=BLOCKS, repr=False)

    def type_of(self, dimensions: Dimensions) -> int:
        block, _ = self.blocks[self.matrices]
        fits = len(dimensions) > 1 and dimensions[0] % block == 0
        return self.matrices if fits else F32

    def size_of(self, dimensions: Dimensions) -> int:
        block, size = self.blocks[self.type_of(dimensions)]
        return math.prod(dimensions) // block * size

    @property
    def weights(self) -> int:
        """The bytes of all tensors."""
        return sum(map(self.size_of, self.tensors.values()))

    def write(self, folder: Path) -> Path:
        """A sparse file of full length."""
        path = folder / f"{self.name}.gguf"
        with path.open("wb") as file:
            file.write(self.head())
            file.truncate(
                file.tell() + sum(aligned(self.size_of(t)) for t in self.tensors.values())
            )
        return path

    def head(self) -> bytes:
        """All of the file but its weights."""
        own = {f"{self.architecture}.{key}": value for key, value in self.metadata.items()}
        general = {"general.architecture": self.architecture, "general.name": self.name}
        types = {"tokenizer.ggml.token_type_count": 2} if "bert" in self.architecture else {}
        return gguf_head({**general, **own, **tokenizer(), **types}, self._described())

    def _described(self) -> Iterable[bytes]:
        offset = 0
        for name, dimensions in self.tensors.items():
            yield described(name, dimensions, self.type_of(dimensions), offset)
            offset += aligned(self.size_of(dimensions))


def tokenizer() -> dict[str, Value]:
    """The smallest one that llama.cpp accepts: every byte is a token."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": [0.0] * VOCABULARY,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256,
    }


# What follows writes GGUF 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

ALIGNMENT = 32
ARRAY = 9
CODES = {str: (8, ""), bool: (7, "?"), int: (4, "I"), float: (6, "f")}
CODES_IN_ARRAYS = CODES | {int: (5, "i")}
"""As a tokenizer's have to be: signed."""


def gguf_head(metadata: Mapping[str, Value], described: Iterable[bytes]) -> bytes:
    tensors = list(described)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(string(key) + typed(value) for key, value in metadata.items())
    head += b"".join(tensors)
    return head.ljust(aligned(len(head)), b"\0")


def described(name: str, dimensions: Dimensions, kind: int, offset: int) -> bytes:
    rank = len(dimensions)
    return string(name) + struct.pack(f"<I{rank}QIQ", rank, *dimensions, kind, offset)


def aligned(size: int) -> int:
    return size + -size % ALIGNMENT


def string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def typed(value: Value) -> bytes:
    if isinstance(value, (str, bool, int, float)):
        code, letter = CODES[type(value)]
        return struct.pack("<I", code) + plain(value, letter)
    code, letter = CODES_IN_ARRAYS[type(value[0])]
    values = b"".join(plain(one, letter) for one in value)
    return struct.pack("<IIQ", ARRAY, code, len(value)) + values


def plain(value: str | bool | int | float, letter: str) -> bytes:
    return string(value) if isinstance(value, str) else struct.pack(f"<{letter}", value)


# The parts of a model

Layer = Mapping[str, Dimensions]
BARE = ("ssm_a", "ssm_d")
"""Tensors whose names have no suffix."""


def attention(width: int, heads: int, kv_heads: int, key: int, value: int = 0) -> Layer:
    return {
        "attn_norm": (width,),
        "attn_q": (width, heads * key),
        "attn_k": (width, kv_heads * key),
        "attn_v": (width, kv_heads * (value or key)),
        "attn_output": (heads * (value or key), width),
    }


def feed_forward(width: int, hidden: int) -> Layer:
    return {
        "ffn_norm": (width,),
        "ffn_gate": (width, hidden),
        "ffn_up": (width, hidden),
        "ffn_down": (hidden, width),
    }


def experts(width: int, hidden: int, count: int) -> Layer:
    return {
        "ffn_gate_inp": (width, count),
        "ffn_gate_exps": (width, hidden, count),
        "ffn_up_exps": (width, hidden, count),
        "ffn_down_exps": (hidden, width, count),
    }


def norms(width: int, *names: str) -> Layer:
    return dict.fromkeys(names, (width,))


def model(
    width: int, layers: int, layer: Callable[[int], Layer], *, tied: bool = False
) -> dict[str, Dimensions]:
    """The tensors of a whole model; what says nothing else is a weight."""
    whole: dict[str, Dimensions] = {"token_embd.weight": (width, VOCABULARY)}
    for index in range(layers):
        for name, dimensions in layer(index).items():
            suffix = "" if name.endswith((".weight", ".bias", *BARE)) else ".weight"
            whole[f"blk.{index}.{name}{suffix}"] = dimensions
    whole["output_norm.weight"] = (width,)
    if not tied:
        whole["output.weight"] = (width, VOCABULARY)
    return whole


def common(
    width: int, layers: int, heads: int, kv_heads: int | list[int], hidden: int | list[int]
) -> dict[str, Value]:
    """What every architecture asks for."""
    return {
        "context_length": 131072,
        "embedding_length": width,
        "block_count": layers,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }


def head_size(key: int, value: int = 0) -> dict[str, Value]:
    return {"attention.key_length": key, "attention.value_length": value or key}


# The models


def llama() -> Shape:
    """Llama 3.1 8B: grouped heads."""
    layer = attention(4096, 32, 8, 128) | feed_forward(4096, 14336)
    return Shape("llama", "llama", common(4096, 32, 32, 8, 14336), model(4096, 32, lambda _: layer))


def qwen2() -> Shape:
    """Qwen 2.5 7B: biases."""
    layer = attention(3584, 28, 4, 128) | feed_forward(3584, 18944)
    layer |= {"attn_q.bias": (3584,), "attn_k.bias": (512,), "attn_v.bias": (512,)}
    return Shape("qwen2", "qwen2", common(3584, 28, 28, 4, 18944), model(3584, 28, lambda _: layer))


def qwen3() -> Shape:
    """Qwen 3 0.6B: heads wider than the width divided by their number, embeddings used twice."""
    layer = attention(1024, 16, 8, 128) | feed_forward(1024, 3072)
    layer |= norms(128, "attn_q_norm", "attn_k_norm")
    metadata = common(1024, 28, 16, 8, 3072) | head_size(128)
    return Shape("qwen3", "qwen3", metadata, model(1024, 28, lambda _: layer, tied=True))


def qwen3moe() -> Shape:
    """Qwen 3 30B-A3B: a mixture of experts."""
    layer = attention(2048, 32, 4, 128) | experts(2048, 768, 128)
    layer |= norms(128, "attn_q_norm", "attn_k_norm") | norms(2048, "ffn_norm")
    metadata = common(2048, 48, 32, 4, 6144) | head_size(128)
    metadata |= {"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768}
    return Shape("qwen3moe", "qwen3moe", metadata, model(2048, 48, lambda _: layer))


def gemma2() -> Shape:
    """Gemma 2 2B: every second layer slides over 4096 tokens."""
    layer = attention(2304, 8, 4, 256) | feed_forward(2304, 9216)
    layer |= norms(2304, "post_attention_norm", "post_ffw_norm")
    metadata = common(2304, 26, 8, 4, 9216) | head_size(256) | {"attention.sliding_window": 4096}
    return Shape("gemma2", "gemma2", metadata, model(2304, 26, lambda _: layer, tied=True))


def gemma3() -> Shape:
    """Gemma 3 4B: five layers of six slide over 1024 tokens."""
    layer = attention(2560, 8, 4, 256) | feed_forward(2560, 10240)
    layer |= norms(2560, "post_attention_norm", "post_ffw_norm")
    layer |= norms(256, "attn_q_norm", "attn_k_norm")
    metadata = common(2560, 34, 8, 4, 10240) | head_size(256) | {"attention.sliding_window": 1024}
    return Shape("gemma3", "gemma3", metadata, model(2560, 34, lambda _: layer, tied=True))


def gemma4() -> Shape:
    """In the manner of Gemma 4 E4B: a pattern, other heads where it slides, layers without KV."""
    slides = [index % 6 != 5 for index in range(42)]

    def layer(index: int) -> Layer:
        key = 256 if slides[index] else 512
        return {
            **attention(2560, 8, 2, key),
            **feed_forward(2560, 10240),
            **norms(2560, "post_attention_norm", "post_ffw_norm"),
            **norms(key, "attn_q_norm", "attn_k_norm"),
        }

    metadata = common(2560, 42, 8, 2, 10240) | head_size(512)
    metadata |= {
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 512,
        "attention.sliding_window_pattern": slides,
        "attention.shared_kv_layers": 18,
        "embedding_length_per_layer_input": 0,
        "rope.dimension_count": 512,
        "rope.dimension_count_swa": 256,
    }
    tensors = model(2560, 42, layer, tied=True) | {"rope_freqs.weight": (256,)}
    return Shape("gemma4", "gemma4", metadata, tensors)


def gpt_oss() -> Shape:
    """gpt-oss 20B: experts, and every second layer slides over 128 tokens."""
    layer = {
        **attention(2880, 64, 8, 64),
        **experts(2880, 2880, 32),
        **norms(2880, "post_attention_norm", "attn_output.bias"),
        "attn_q.bias": (4096,),
        "attn_k.bias": (512,),
        "attn_v.bias": (512,),
        "attn_sinks": (64,),
        "ffn_gate_inp.bias": (32,),
        "ffn_gate_exps.bias": (2880, 32),
        "ffn_up_exps.bias": (2880, 32),
        "ffn_down_exps.bias": (2880, 32),
    }
    metadata = common(2880, 24, 64, 8, 2880) | head_size(64)
    metadata |= {"expert_count": 32, "expert_used_count": 4, "expert_feed_forward_length": 2880}
    metadata |= {"attention.sliding_window": 128}
    return Shape("gpt-oss", "gpt-oss", metadata, model(2880, 24, lambda _: layer))


def sliding(architecture: str, layer: Layer, **more: Value) -> Shape:
    """Eight narrow layers, most of which slide: which ones, the engine knows by heart."""
    metadata = common(512, 8, 8, 2, 1024) | head_size(64) | more
    metadata |= {"attention.sliding_window": 512}
    tensors = model(512, 8, lambda _: layer, tied=architecture == "cohere2")
    return Shape(architecture, architecture, metadata, tensors)


def cohere2() -> Shape:
    layer = {**attention(512, 8, 2, 64), **feed_forward(512, 1024)}
    layer.pop("ffn_norm")
    epsilon = {"attention.layer_norm_epsilon": 1e-5}
    return sliding("cohere2", layer, logit_scale=1.0, **epsilon)


def olmo2() -> Shape:
    layer = {**attention(512, 8, 2, 64), **feed_forward(512, 1024)}
    layer |= norms(512, "post_attention_norm", "post_ffw_norm", "attn_q_norm")
    layer |= norms(128, "attn_k_norm")
    del layer["attn_norm"], layer["ffn_norm"]
    return sliding("olmo2", layer)


def afmoe() -> Shape:
    layer = {**attention(512, 8, 2, 64), **feed_forward(512, 1024), "attn_gate": (512, 512)}
    layer |= norms(64, "attn_q_norm", "attn_k_norm")
    layer |= norms(512, "post_attention_norm", "post_ffw_norm")
    mixture = {"expert_count": 4, "expert_used_count": 2, "expert_shared_count": 1}
    dense = {"leading_dense_block_count": 8, "expert_feed_forward_length": 256}
    return sliding("afmoe", layer, **mixture, **dense)


def smallthinker() -> Shape:
    layer = {**attention(512, 8, 2, 64), **experts(512, 1024, 4), **norms(512, "ffn_norm")}
    mixture = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 1024}
    window = {"expert_gating_func": 2, "attention.sliding_window": 4096}
    shape = sliding("smallthinker", layer)
    return evolve(shape, metadata={**shape.metadata, **mixture, **window})


def llama4() -> Shape:
    layer = {**attention(512, 8, 2, 64), **experts(512, 1024, 4), **norms(512, "ffn_norm")}
    layer |= {f"ffn_{name}_shexp": (512, 1024) for name in ("gate", "up")}
    layer |= {"ffn_down_shexp": (1024, 512)}
    mixture = {"expert_count": 4, "expert_used_count": 1, "expert_feed_forward_length": 1024}
    shape = sliding("llama4", layer, interleave_moe_layer_step=1, **mixture)
    own = {key: value for key, value in shape.metadata.items() if "sliding" not in key}
    return evolve(shape, metadata=own)


def openelm() -> Shape:
    """OpenELM 1.1B: another number of heads in every layer."""
    heads = [16, 16, 16, 20, 20, 20, 20, 20, 20, 20, 24, 24, 24, 24, 24, 24, 24, 24, 28, 28]
    heads += [28, 28, 28, 28, 32, 32, 32, 32]
    kv_heads = [count // 4 for count in heads]
    hidden = [256 * (4 + 2 * index) for index in range(28)]

    def layer(index: int) -> Layer:
        return {
            "attn_norm": (2048,),
            "attn_qkv": (2048, 64 * (heads[index] + 2 * kv_heads[index])),
            "attn_output": (64 * heads[index], 2048),
            **norms(64, "attn_q_norm", "attn_k_norm"),
            **feed_forward(2048, hidden[index]),
        }

    metadata = common(2048, 28, 0, kv_heads, hidden) | head_size(64)
    metadata |= {"attention.head_count": heads, "rope.dimension_count": 64}
    return Shape("openelm", "openelm", metadata, model(2048, 28, layer, tied=True))


def deepseek2() -> Shape:
    """DeepSeek V2 Lite: MLA, which caches one latent row in place of keys and values."""
    mla = {
        "attn_norm": (2048,),
        "attn_q": (2048, 16 * 192),
        "attn_kv_a_mqa": (2048, 576),
        "attn_kv_a_norm": (512,),
        "attn_k_b": (128, 512, 16),
        "attn_v_b": (512, 128, 16),
        "attn_output": (16 * 128, 2048),
    }
    shared = {
        "ffn_gate_shexp": (2048, 2816),
        "ffn_up_shexp": (2048, 2816),
        "ffn_down_shexp": (2816, 2048),
    }
    mixture = {**mla, **norms(2048, "ffn_norm"), **experts(2048, 1408, 64), **shared}
    dense = {**mla, **feed_forward(2048, 10944)}
    metadata = common(2048, 27, 16, 1, 10944) | head_size(576, 512)
    metadata |= {
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
        "leading_dense_block_count": 1,
        "expert_count": 64,
        "expert_used_count": 6,
        "expert_shared_count": 2,
        "expert_feed_forward_length": 1408,
        "expert_weights_scale": 1.0,
    }
    tensors = model(2048, 27, lambda index: mixture if index else dense)
    return Shape("deepseek2", "deepseek2", metadata, tensors)


def glm4moe() -> Shape:
    """GLM 4.5 Air, cut to ten layers: the last one only predicts, and caches nothing."""
    always = attention(4096, 96, 8, 128) | norms(4096, "post_attention_norm")
    always |= {"attn_q.bias": (96 * 128,), "attn_k.bias": (1024,), "attn_v.bias": (1024,)}
    dense = {**always, **feed_forward(4096, 10944)}
    dense.pop("ffn_norm")
    mixture = {
        **always,
        **experts(4096, 1408, 128),
        "exp_probs_b.bias": (128,),
        "ffn_gate_shexp": (4096, 1408),
        "ffn_up_shexp": (4096, 1408),
        "ffn_down_shexp": (1408, 4096),
    }
    predicting = {
        **mixture,
        "nextn.eh_proj": (8192, 4096),
        **norms(4096, "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"),
    }
    metadata = common(4096, 10, 96, 8, 10944) | head_size(128)
    metadata |= {
        "rope.dimension_count": 64,
        "leading_dense_block_count": 1,
        "expert_count": 128,
        "expert_used_count": 8,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 1408,
        "expert_gating_func": 2,
        "nextn_predict_layers": 1,
    }
    tensors = model(4096, 10, lambda index: {0: dense, 9: predicting}.get(index, mixture))
    return Shape("glm4moe", "glm4moe", metadata, tensors)


def mamba() -> Shape:
    """Mamba 790M: recurrent throughout; a sequence's state does not grow."""
    layer = norms(1536, "attn_norm") | ssm(1536, inner=3072, state=16, rank=96)
    metadata = common(1536, 48, 0, 0, 0) | recurrent(inner=3072, state=16, rank=96)
    return Shape("mamba", "mamba", metadata, model(1536, 48, lambda _: layer, tied=True))


def jamba() -> Shape:
    """In the manner of Jamba: attention in one layer of eight, Mamba in the others."""
    kv_heads = [8 if index % 8 == 4 else 0 for index in range(32)]

    def layer(index: int) -> Layer:
        mamba = {
            **norms(4096, "attn_norm"),
            **ssm(4096, inner=8192, state=16, rank=256),
            "ssm_dt_norm": (256,),
            "ssm_b_norm": (16,),
            "ssm_c_norm": (16,),
        }
        mixer = attention(4096, 32, 8, 128) if kv_heads[index] else mamba
        return {**mixer, **feed_forward(4096, 14336)}

    metadata = common(4096, 32, 32, kv_heads, 14336)
    metadata |= recurrent(inner=8192, state=16, rank=256)
    return Shape("jamba", "jamba", metadata, model(4096, 32, layer))


def falcon_h1() -> Shape:
    """Falcon H1 1.5B: attention and Mamba 2 in every layer."""
    layer = {
        **attention(2048, 8, 2, 128),
        "ssm_in": (2048, 3072 + 3072 + 2 * 256 + 24),
        "ssm_conv1d": (4, 3072 + 2 * 256),
        "ssm_conv1d.bias": (3072 + 2 * 256,),
        "ssm_dt.bias": (24,),
        "ssm_a": (1, 24),
        "ssm_d": (1, 24),
        "ssm_norm": (3072, 1),
        "ssm_out": (3072, 2048),
        **feed_forward(2048, 4096),
    }
    metadata = common(2048, 24, 8, 2, 4096) | head_size(128)
    metadata |= recurrent(inner=3072, state=256, rank=24, groups=1)
    tensors = model(2048, 24, lambda _: layer)
    bare = {name.replace("ffn_norm.weight", "ffn_norm"): size for name, size in tensors.items()}
    return Shape("falcon-h1", "falcon-h1", metadata, bare)


def lfm2() -> Shape:
    """LFM2 1.2B: short convolutions, attention in between."""
    kv_heads = [8 if index in (2, 5, 8, 10, 12, 14) else 0 for index in range(16)]
    convolution = {
        "attn_norm": (2048,),
        "shortconv.conv.weight": (3, 2048),
        "shortconv.in_proj.weight": (2048, 6144),
        "shortconv.out_proj.weight": (2048, 2048),
    }
    attending = {**attention(2048, 32, 8, 64), **norms(64, "attn_q_norm", "attn_k_norm")}

    def layer(index: int) -> Layer:
        mixer = attending if kv_heads[index] else convolution
        return {**mixer, **feed_forward(2048, 8192)}

    metadata = common(2048, 16, 32, kv_heads, 8192) | {"shortconv.l_cache": 3}
    tensors = model(2048, 16, layer, tied=True)
    tensors["token_embd_norm.weight"] = tensors.pop("output_norm.weight")
    return Shape("lfm2", "lfm2", metadata, tensors)


def qwen35() -> Shape:
    """Qwen 3.5 4B: gated delta nets, attention in every fourth layer."""
    delta_net = {
        "attn_norm": (2560,),
        "attn_qkv": (2560, 2 * 16 * 128 + 4096),
        "attn_gate": (2560, 4096),
        "ssm_conv1d": (4, 2 * 16 * 128 + 4096),
        "ssm_dt.bias": (32,),
        "ssm_a": (32,),
        "ssm_beta": (2560, 32),
        "ssm_alpha": (2560, 32),
        "ssm_norm": (128,),
        "ssm_out": (4096, 2560),
    }
    attending = attention(2560, 16, 4, 256) | norms(256, "attn_q_norm", "attn_k_norm")
    attending |= {"attn_q": (2560, 2 * 16 * 256)}

    def layer(index: int) -> Layer:
        whole = {**(attending if index % 4 == 3 else delta_net), **feed_forward(2560, 9216)}
        whole["post_attention_norm"] = whole.pop("ffn_norm")
        return whole

    metadata = common(2560, 32, 16, 4, 9216) | head_size(256)
    metadata |= recurrent(inner=4096, state=128, rank=32, groups=16)
    metadata |= {"full_attention_interval": 4, "rope.dimension_count": 64}
    metadata |= {"rope.dimension_sections": [11, 11, 10, 0]}
    return Shape("qwen35", "qwen35", metadata, model(2560, 32, layer, tied=True))


def rwkv7() -> Shape:
    """RWKV 7 1.5B: a matrix for every head, however long the text."""
    layer = {
        **norms(2048, "attn_norm", "attn_norm.bias", "attn_norm_2", "attn_norm_2.bias"),
        **norms(2048, "time_mix_w0", "time_mix_a0", "time_mix_v0", "time_mix_k_k", "time_mix_k_a"),
        **norms(2048, "time_mix_ln", "time_mix_ln.bias", "time_mix_r_k", "channel_mix_lerp_k"),
        "time_mix_lerp_fused": (2048, 1, 1, 6),
        "time_mix_w1": (2048, 96),
        "time_mix_w2": (96, 2048),
        "time_mix_a1": (2048, 96),
        "time_mix_a2": (96, 2048),
        "time_mix_v1": (2048, 96),
        "time_mix_v2": (96, 2048),
        "time_mix_g1": (2048, 256),
        "time_mix_g2": (256, 2048),
        "time_mix_key": (2048, 2048),
        "time_mix_value": (2048, 2048),
        "time_mix_receptance": (2048, 2048),
        "time_mix_output": (2048, 2048),
        "channel_mix_key": (2048, 8192),
        "channel_mix_value": (8192, 2048),
    }
    metadata = common(2048, 24, 0, 0, 8192)
    metadata |= {
        "attention.layer_norm_epsilon": 1e-5,
        "wkv.head_size": 64,
        "token_shift_count": 2,
        "attention.decay_lora_rank": 96,
        "attention.iclr_lora_rank": 96,
        "attention.value_residual_mix_lora_rank": 96,
        "attention.gate_lora_rank": 256,
    }
    tensors = model(2048, 24, lambda _: layer)
    tensors |= {f"token_embd_norm.{kind}": (2048,) for kind in ("weight", "bias")}
    tensors |= {"output_norm.bias": (2048,)}
    return Shape("rwkv7", "rwkv7", metadata, tensors)


def bert(pooling: int | None = 1, *, judges: bool = False) -> Shape:
    """A small BERT, which embeds texts; or one that judges how well two texts fit."""
    width, hidden, context = 32, 64, 512
    weights = {
        **{f"attn_{name}": (width, width) for name in ("q", "k", "v", "output")},
        "ffn_up": (width, hidden),
        "ffn_down": (hidden, width),
        **norms(width, "attn_output_norm", "layer_output_norm"),
    }
    layer = {
        f"{name}.{kind}": dimensions if kind == "weight" else dimensions[-1:]
        for name, dimensions in weights.items()
        for kind in ("weight", "bias")
    }
    tensors: dict[str, Dimensions] = {
        "token_embd.weight": (width, VOCABULARY),
        "token_types.weight": (width, 2),
        "position_embd.weight": (width, context),
        "token_embd_norm.weight": (width,),
        "token_embd_norm.bias": (width,),
        **{f"blk.{index}.{name}": layer[name] for index in range(2) for name in layer},
    }
    if judges:
        tensors |= {"cls.weight": (width, width), "cls.bias": (width,)}
        tensors |= {"cls.output.weight": (width, 1), "cls.output.bias": (1,)}
    metadata: dict[str, Value] = {
        "context_length": context,
        "embedding_length": width,
        "block_count": 2,
        "feed_forward_length": hidden,
        "attention.head_count": 4,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
    }
    if pooling is not None:
        metadata["pooling_type"] = pooling
    return Shape("bert", "bert", metadata, tensors, matrices=F32)


def projector(width: int, hidden: int, into: int) -> Shape:
    """Eyes like those of LLaVA 1.5, of two layers, for a model that is `into` wide."""
    layer = {
        **{f"{name}.weight": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_out")},
        **{f"{name}.bias": (width,) for name in ("attn_q", "attn_k", "attn_v", "attn_out")},
        **norms(width, "ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias", "ffn_down.bias"),
        **norms(hidden, "ffn_up.bias"),
        "ffn_up.weight": (width, hidden),
        "ffn_down.weight": (hidden, width),
    }
    tensors = {
        "v.patch_embd.weight": (14, 14, 3, width),
        "v.position_embd.weight": (width, 577),
        "v.class_embd": (width,),
        **{f"v.pre_ln.{kind}": (width,) for kind in ("weight", "bias")},
        **{f"v.blk.{index}.{name}": layer[name] for index in range(2) for name in layer},
        "mm.0.weight": (width, into),
        "mm.0.bias": (into,),
        "mm.2.weight": (into, into),
        "mm.2.bias": (into,),
    }
    metadata: dict[str, Value] = {
        "has_vision_encoder": True,
        "projector_type": "mlp",
        "vision.image_size": 336,
        "vision.patch_size": 14,
        "vision.embedding_length": width,
        "vision.feed_forward_length": hidden,
        "vision.block_count": 2,
        "vision.projection_dim": into,
        "vision.attention.head_count": 16,
        "vision.attention.layer_norm_epsilon": 1e-5,
        "vision.image_mean": [0.48, 0.46, 0.41],
        "vision.image_std": [0.27, 0.26, 0.28],
    }
    return Shape("mmproj-clip", "clip", metadata, tensors)


def ssm(width: int, *, inner: int, state: int, rank: int) -> Layer:
    """Mamba's part of a layer."""
    return {
        "ssm_in": (width, 2 * inner),
        "ssm_conv1d": (4, inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x": (inner, rank + 2 * state),
        "ssm_dt": (rank, inner),
        "ssm_dt.bias": (inner,),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out": (inner, width),
    }


def recurrent(*, inner: int, state: int, rank: int, groups: int = 0) -> dict[str, Value]:
    metadata: dict[str, Value] = {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
    }
    return metadata | ({"ssm.group_count": groups} if groups else {})


ATTENDING = (llama, qwen2, qwen3, qwen3moe, gemma2, gemma3, gemma4, gpt_oss, openelm)
BY_HEART = (cohere2, olmo2, afmoe, smallthinker, llama4)
LATENT = (deepseek2,)
PREDICTING = (glm4moe,)
RECURRENT = (mamba, rwkv7)
HYBRID = (jamba, falcon_h1, lfm2, qwen35)
SHAPES = tuple(
    shape() for shape in (*ATTENDING, *BY_HEART, *LATENT, *PREDICTING, *RECURRENT, *HYBRID)
)
