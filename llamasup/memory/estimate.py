"""How much memory a model needs on a rung, computed from its header alone. Pure.

Weights and caches follow llama.cpp's own rules and are exact to the byte. Compute buffers depend on
how its allocator packs a graph; the phases of a layer that need most were measured on b11669, and
the results here are within a few MiB of them. Where the engine can be asked, its own answer counts
instead.

Two things are left out, because no file says them: what a GPU's driver takes for itself, and the
prompt cache.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

from attrs import define, evolve, field, frozen

from llamasup.memory.ladder import Rung
from llamasup.models.gguf import TENSOR_TYPES, BadModelFile, Header, Tensor, TensorType

F32 = 4
F16 = 2
CELLS_ROUNDED_TO = 256
MAX_LAYERS = 1 << 10
"""Twice as many as the engine accepts."""

CACHE_TYPES: Mapping[str, TensorType] = {kind.name: kind for kind in TENSOR_TYPES.values()}


@frozen
class Share:
    """Bytes on one kind of device. `kv` holds recurrent states, too."""

    weights: int = 0
    kv: int = 0
    compute: int = 0
    mmproj: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.kv + self.compute + self.mmproj


@frozen
class Need:
    """Bytes in host memory, and on all GPUs together."""

    host: Share
    gpu: Share

    @property
    def total(self) -> int:
        """The sum on all devices."""
        return self.host.total + self.gpu.total


def estimate(
    header: Header,
    rung: Rung,
    *,
    parallel: int = 1,
    kv_unified: bool = False,
    n_batch: int = 2048,
    n_ubatch: int = 512,
    flash_attn: bool = True,
    gpus: int = 0,
    mmproj: Header | None = None,
) -> Need:
    """What a child on this rung will need. If the rung leaves a choice open, the largest is
    assumed: the context that the model was trained on, f16, and all layers on the GPUs.

    `rung.context` is for all slots together, as llama-server's `--ctx-size` is. Raises BadModelFile
    if the header's numbers make no sense.
    """
    model = _Model(header)
    context = _Context.of(
        rung.context or model.number("context_length"), parallel, kv_unified, n_batch, n_ubatch
    )
    split = _Split.of(model.number("block_count"), rung.gpu_layers, gpus)
    cache = _Cache(model, context, rung.cache_type or "f16", flash_attn)

    weights = _weights(model, split)
    kv = _sums((split.on_gpu(layer), cache.of_layer(layer)) for layer in range(model.layers))
    compute = _compute(model, context, split, flash_attn, gpus)
    projector = _sums([(gpus > 0, _projector(mmproj))] if mmproj else [])
    host, gpu = (
        Share(weights[there], kv[there], compute[there], projector[there])
        for there in (False, True)
    )
    return Need(host, gpu)


def _sums(parts: Iterable[tuple[bool, int]]) -> Mapping[bool, int]:
    """Bytes on the GPUs (True), and on the host (False)."""
    sums: dict[bool, int] = defaultdict(int)
    for on_gpu, size in parts:
        sums[on_gpu] += size
    return sums


def _rounded(cells: int) -> int:
    return cells + -cells % CELLS_ROUNDED_TO


@frozen
class _Context:
    """How the engine uses a context size and a number of slots."""

    cells: int
    """Cells of one stream. Slots that share one cache are one stream."""
    streams: int
    slots: int
    tokens: int
    """Tokens that are computed at once."""

    @classmethod
    def of(cls, size: int, slots: int, unified: bool, n_batch: int, n_ubatch: int) -> _Context:
        size = _rounded(size)
        streams = 1 if unified else slots
        return cls(_rounded(size // streams), streams, slots, min(size, n_batch, n_ubatch))

    def sliding_cells(self, window: int) -> int:
        """The cells of a sliding layer: its window, for every slot in the stream, and one batch."""
        windows = window * (self.slots // self.streams)
        return _rounded(min(self.cells, windows + self.tokens))


@frozen
class _Split:
    """Which layers are on GPUs: the last layers first, and the output counts as the last layer."""

    layers: int
    first_on_gpu: int

    @classmethod
    def of(cls, layers: int, gpu_layers: int | None, gpus: int) -> _Split:
        wanted = layers + 1 if gpu_layers is None or gpu_layers < 0 else gpu_layers
        return cls(layers, max(layers + 1 - wanted, 0) if gpus else layers + 1)

    def on_gpu(self, layer: int) -> bool:
        return layer >= self.first_on_gpu

    @property
    def output_on_gpu(self) -> bool:
        return self.on_gpu(self.layers)

    @property
    def all_on_gpu(self) -> bool:
        return self.on_gpu(0)


@frozen
class _Sliding:
    """One layer in `period` sees all tokens, the others a sliding window."""

    period: int
    window: int = 0
    """The window if the file names none. 0 means that then no layer slides."""
    dense_first: bool = False

    def slides(self, layer: int) -> bool:
        return layer % self.period != (0 if self.dense_first else self.period - 1)


SLIDING: Mapping[str, _Sliding] = {
    "afmoe": _Sliding(4),
    "cohere2": _Sliding(4),
    "exaone4": _Sliding(4),
    "gemma2": _Sliding(2, window=4096),
    "gemma3": _Sliding(6),
    "gemma3n": _Sliding(5),
    "gpt-oss": _Sliding(2),
    "llama4": _Sliding(4, window=8192),
    "olmo2": _Sliding(4),
    "smallthinker": _Sliding(4, dense_first=True),
}
"""What the engine assumes for these architectures, unless the file says it. Other architectures
slide only if their file has a pattern: some files have a window that the engine does not use."""

LAYERS_WITH_CACHE = {"gemma3n": 20}
"""Only so many first layers have a cache; the others read theirs. Later models' files say it."""

WITHOUT_CACHE = {
    *("bert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert"),
    *("dream", "eurobert", "gemma-embedding", "llada", "llada-moe", "nomic-bert-moe", "rnd1"),
}

RECURRENT_PARTS = ("ssm_", "shortconv.", "time_mix_")
_LAYER_OF = re.compile(r"blk\.(\d+)\.(.+)")


@define
class _Model:
    """A header, with the numbers from which memory is computed."""

    header: Header
    layers: int = field(init=False)
    """Layers that the engine loads. Those that only predict further tokens stay in the file."""

    def __attrs_post_init__(self) -> None:
        self.layers = self.number("block_count") - self.number("nextn_predict_layers")
        if self.layers > MAX_LAYERS:
            raise BadModelFile(f"it claims {self.layers} layers")

    def number(self, key: str, otherwise: int = 0) -> int:
        value = self.header.own(key)
        return max(value, 0) if isinstance(value, int) else otherwise

    def of_layer(self, key: str, layer: int, otherwise: int = 0) -> int:
        """A number that may be the same for all layers, or an array."""
        values = self.header.own(key)
        if not isinstance(values, tuple):
            return self.number(key, otherwise)
        value = values[layer] if layer < len(values) else None
        return max(value, 0) if isinstance(value, int) else otherwise

    def largest(self, key: str) -> int:
        return max((self.of_layer(key, layer) for layer in range(self.layers)), default=0)

    @property
    def width(self) -> int:
        return self.number("embedding_length")

    @cached_property
    def vocabulary(self) -> int:
        shapes = (tensor.shape for tensor in self.header.tensors if _is_input(tensor.name))
        return max((shape[1] for shape in shapes if len(shape) > 1), default=0)

    @cached_property
    def parts(self) -> Mapping[int, set[str]]:
        """The names of every layer's tensors."""
        parts: dict[int, set[str]] = defaultdict(set)
        for tensor in self.header.tensors:
            if found := _LAYER_OF.match(tensor.name):
                parts[int(found[1])].add(found[2])
        return parts

    def recurs(self, layer: int) -> bool:
        return any(part.startswith(RECURRENT_PARTS) for part in self.parts[layer])

    def attends(self, layer: int) -> bool:
        """A recurrent layer has attention as well only if it has keys of its own."""
        return not self.recurs(layer) or "attn_k.weight" in self.parts[layer]

    @cached_property
    def layers_with_cache(self) -> int:
        """How many layers have keys and values of their own, from the first one on."""
        if self.header.architecture in WITHOUT_CACHE:
            return 0
        own = self.layers - self.number("attention.shared_kv_layers")
        return min(own, LAYERS_WITH_CACHE.get(self.header.architecture, own))

    @cached_property
    def window(self) -> int:
        known = SLIDING.get(self.header.architecture)
        return self.number("attention.sliding_window", known.window if known else 0)

    def slides(self, layer: int) -> bool:
        pattern = self.header.own("attention.sliding_window_pattern")
        known = SLIDING.get(self.header.architecture)
        if not self.window:
            return False
        if isinstance(pattern, tuple):
            return bool(self.of_layer("attention.sliding_window_pattern", layer))
        if known and isinstance(pattern, int) and pattern > 0:
            known = evolve(known, period=pattern)
        return known is not None and known.slides(layer)

    @property
    def latent(self) -> bool:
        """MLA: one compressed row in place of all keys and values."""
        return bool(self.number("attention.key_length_mla"))

    def heads(self, layer: int) -> int:
        return self.of_layer("attention.head_count", layer)

    def key_width(self, layer: int) -> int:
        return self._kv_heads(layer) * self.head_length("key", layer)

    def value_width(self, layer: int) -> int:
        return 0 if self.latent else self._kv_heads(layer) * self.head_length("value", layer)

    def _kv_heads(self, layer: int) -> int:
        return self.of_layer("attention.head_count_kv", layer, self.heads(layer))

    def head_length(self, what: str, layer: int) -> int:
        length = self.number(f"attention.{what}_length", self.width // max(self.heads(0), 1))
        if self.slides(layer):
            return self.number(f"attention.{what}_length_swa", length)
        return length

    @cached_property
    def shift_state(self) -> int:
        """Elements that a recurrent layer keeps of the last few tokens, for one sequence."""
        if self.number("wkv.head_size"):
            return self.number("token_shift_count", 2) * self.width
        if taps := self.number("shortconv.l_cache"):
            return self.width * (taps - 1)
        taps = max(self.number("ssm.conv_kernel") - 1, 0)
        if head := self.number("kda.head_dim"):
            return 3 * taps * self.heads(0) * head
        groups, state = self.number("ssm.group_count"), self.number("ssm.state_size")
        return taps * (self.number("ssm.inner_size") + 2 * groups * state)

    @cached_property
    def memory_state(self) -> int:
        """Elements that a recurrent layer keeps of all earlier tokens, for one sequence."""
        if head := self.number("wkv.head_size"):
            return head * self.width
        if head := self.number("kda.head_dim"):
            return head * head * self.heads(0)
        return self.number("ssm.state_size") * self.number("ssm.inner_size")


@define
class _Cache:
    """What the layers keep of the sequences they have seen."""

    model: _Model
    context: _Context
    type_name: str
    flash_attn: bool

    def of_layer(self, layer: int) -> int:
        return self._keys_and_values(layer) + self._states(layer)

    def _keys_and_values(self, layer: int) -> int:
        model, context = self.model, self.context
        if layer >= model.layers_with_cache or not model.attends(layer):
            return 0
        cells = context.sliding_cells(model.window) if model.slides(layer) else context.cells
        # Without flash attention values are kept transposed, all layers as wide as the widest.
        values = model.value_width(layer) if self.flash_attn else self._widest_values
        return (self._row(model.key_width(layer)) + self._row(values)) * cells * context.streams

    def _states(self, layer: int) -> int:
        model = self.model
        if not model.recurs(layer):
            return 0
        return F32 * (model.shift_state + model.memory_state) * self.context.slots

    @cached_property
    def _widest_values(self) -> int:
        return max(map(self.model.value_width, range(self.model.layers)), default=0)

    def _row(self, elements: int) -> int:
        # A type that only some engines know counts as f16, which is larger.
        kind = CACHE_TYPES.get(self.type_name, CACHE_TYPES["f16"])
        return -(-elements // kind.elements) * kind.size


def _weights(model: _Model, split: _Split) -> Mapping[bool, int]:
    placed = [(_place(tensor, split), tensor.size) for tensor in _loaded(model)]
    tied = not any(tensor.name == "output.weight" for tensor in model.header.tensors)
    if tied and split.output_on_gpu:
        embeddings = sum(t.size for t in model.header.tensors if t.name == "token_embd.weight")
        placed.append((True, embeddings))
    return _sums(placed)


def _loaded(model: _Model) -> Iterable[Tensor]:
    for tensor in model.header.tensors:
        found = _LAYER_OF.match(tensor.name)
        if found is None or int(found[1]) < model.layers:
            yield tensor


def _place(tensor: Tensor, split: _Split) -> bool:
    if _is_input(tensor.name):
        return False
    found = _LAYER_OF.match(tensor.name)
    return split.on_gpu(int(found[1])) if found else split.output_on_gpu


def _is_input(name: str) -> bool:
    """The engine looks up embeddings on the host, so they stay there."""
    return name.startswith(
        ("token_embd.", "per_layer_token_embd.", "token_types.", "position_embd.")
    )


def _compute(
    model: _Model, context: _Context, split: _Split, flash_attn: bool, gpus: int
) -> Mapping[bool, int]:
    """A device that holds a layer needs buffers for one; the host at least those of the inputs."""
    masks = _masks(model, context, flash_attn)
    layer = masks + max(_phases(model, context, flash_attn)) + _outputs(model, context)
    inputs = masks + F32 * model.width * context.tokens
    on_host = inputs if split.all_on_gpu else layer
    return {False: on_host, True: layer * gpus if split.output_on_gpu else 0}


def _masks(model: _Model, context: _Context, flash_attn: bool) -> int:
    """Which token sees which cell: one mask for layers that see everything, one for the others."""
    attending = [layer for layer in range(model.layers_with_cache) if model.attends(layer)]
    cells = context.cells if attending else 0
    if any(map(model.slides, attending)):
        cells += context.sliding_cells(model.window)
    return cells * context.tokens * (F16 if flash_attn else F32)


def _outputs(model: _Model, context: _Context) -> int:
    """One row of logits for every slot, in the graph and in the buffer for the sampler."""
    return 2 * F32 * model.vocabulary * context.slots


def _phases(model: _Model, context: _Context, flash_attn: bool) -> Iterable[int]:
    """Bytes that are needed at the same time when a layer needs most."""
    width, tokens = model.width, context.tokens
    hidden = model.largest("feed_forward_length")
    yield F32 * tokens * (5 * width + 3 * hidden)

    chosen = model.number("expert_used_count")
    each = model.largest("expert_feed_forward_length") or hidden
    yield F32 * tokens * (5 * width + 3 * chosen * each)
    yield F32 * tokens * (6 * width + 2 * chosen * width)

    for layer in range(model.layers_with_cache):
        rows = 5 * width + 2 * model.heads(layer) * model.head_length("key", layer)
        rows += model.key_width(layer) + model.value_width(layer)
        scores = 0 if flash_attn else model.heads(layer) * context.cells
        yield F32 * tokens * (rows + scores)

    if model.number("wkv.head_size"):
        yield F32 * tokens * 20 * width
    states = 2 * context.slots * model.memory_state
    yield F32 * (tokens * 5 * (width + model.number("ssm.inner_size")) + states)


def _projector(header: Header) -> int:
    """An image encoder: its weights, and room to encode one picture of its nominal size."""
    picture, width = _clip(header, "image_size"), _clip(header, "embedding_length")
    patches = (picture // max(_clip(header, "patch_size"), 1)) ** 2
    gated = any(tensor.name == "v.blk.0.ffn_gate.weight" for tensor in header.tensors)
    rows = 4 * width + (3 if gated else 1) * _clip(header, "feed_forward_length")
    colours = 3 * picture**2
    return sum(tensor.size for tensor in header.tensors) + F32 * (patches * rows + colours)


def _clip(header: Header, key: str) -> int:
    value = header.metadata.get(f"clip.vision.{key}")
    return max(value, 0) if isinstance(value, int) else 0
