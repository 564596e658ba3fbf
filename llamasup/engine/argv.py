"""The command line and the environment of a child. Pure: the engine says which flags it knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.schema import ModelSettings
from llamasup.engine.locate import Engine, Program
from llamasup.memory.ladder import Rung
from llamasup.models.purpose import Purpose

_CHILD_MODE = "LLAMA_SERVER_ROUTER_PORT"
"""In "child mode" llama-server reports its loading, and ends when its stdin closes."""

ALL_LAYERS = "999"
"""More layers than any model has: every build understands this as "all"."""


_PURPOSES: Final = {
    Purpose.GENERATE: (),
    Purpose.EMBED: (("--embeddings",),),
    Purpose.RERANK: (("--reranking",),),
    Purpose.EMBED_ANYHOW: (("--embeddings",), ("--pooling", "mean")),
}
_SAYS_ITS_PURPOSE: Final = frozenset(
    {"--embedding", "--embeddings", "--rerank", "--reranking", "--pooling"}
)


def argv(
    engine: Engine,
    name: str,
    settings: ModelSettings,
    rung: Rung,
    address: Address,
    cache_ram: int,
    engine_args: Sequence[str] = (),
    purpose: Purpose = Purpose.GENERATE,
) -> list[str]:
    """The command line for `settings` on `rung`. The user's arguments come last, so they win."""
    words = [*engine.program.command, "--model", str(settings.path), *_where(address)]

    def add(flag: str, value: object = None) -> None:
        if value != "auto" and flag in engine.flags:
            words.extend([flag] if value is None else [flag, str(value)])

    add("--alias", name)
    if settings.mmproj != "none":
        add("--mmproj", settings.mmproj)
    add("--parallel", settings.parallel)
    # Waiting requests hold llama-server's HTTP threads: with too few, /health stalls.
    add("--threads-http", max(32, settings.parallel + 16))
    add("--ctx-size", "auto" if rung.context is None else rung.context)
    add("--cache-type-k", rung.cache_type or "auto")
    add("--cache-type-v", rung.cache_type or "auto")
    add("--gpu-layers", _layers(rung.gpu_layers))
    add("--threads", settings.threads)
    add("--batch-size", settings.batch_size)
    # Without this, each child's cache could take 8 GiB of host memory.
    add("--cache-ram", cache_ram >> 20)
    args = own_args(engine_args, settings)
    if not says_its_purpose(args):
        for flag in _PURPOSES[purpose]:
            add(*flag)
    add("--metrics")
    add("--slots")
    return [*words, *args]


def own_args(engine_args: Sequence[str], settings: ModelSettings) -> list[str]:
    """What the operator tells a model's engine, the most particular last: that counts."""
    # RPC servers come first: the engine has to know their devices before it is told which to use.
    servers = ["--rpc", ",".join(settings.rpc)] if settings.rpc else []
    devices = ["--device", ",".join(settings.devices)] if settings.devices else []
    return [*engine_args, *servers, *devices, *settings.extra_args]


def says_its_purpose(args: Sequence[str]) -> bool:
    """Do the operator's own arguments say what the model is for? Then they alone count."""
    return not _SAYS_ITS_PURPOSE.isdisjoint(args)


def _where(address: Address) -> list[str]:
    if isinstance(address, UnixAddress):
        return ["--host", address.path]
    return ["--host", address.host, "--port", str(address.port)]


def _layers(layers: int | None) -> str:
    if layers is None:
        return "auto"
    return ALL_LAYERS if layers < 0 else str(layers)


def files_in(args: Sequence[str]) -> Iterator[Path]:
    """The files that an engine reads because of the operator's own arguments.

    Files that it writes, such as its log, are not among them. Lists are split, without their
    scales.
    """
    for flag, value in pairwise(args):
        if flag in _READS_FILES:
            for part in value.split(","):
                scaled = _SCALED.fullmatch(part)
                yield Path(scaled[1] if scaled else part)


_SCALED = re.compile(r"(.+):-?[0-9.]+")
_READS_FILES = {
    *("-m", "--model", "-mm", "--mmproj", "-mv", "--model-vocoder"),
    *("-md", "--model-draft", "--spec-draft-model"),
    *("--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled"),
    *("--chat-template-file", "--grammar-file", "-jf", "--json-schema-file"),
    *("-lcs", "--lookup-cache-static", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"),
}


def asks_for_keys(args: Sequence[str], extra: Mapping[str, str]) -> bool:
    """Did the operator tell the engine to check clients' keys itself?"""
    return not _ASKING.isdisjoint(args) or not _ASKING.isdisjoint(extra)


_ASKING = {"--api-key", "--api-key-file", "LLAMA_API_KEY", "LLAMA_ARG_API_KEY_FILE"}


def inherited(base: Mapping[str, str]) -> dict[str, str]:
    """The variables of `base` that a server of models may need.

    All others are left out: keys of clouds and hubs, the operator's own key, the socket of a
    service manager. If a server needs one of them, the operator writes it into its `env`.
    """
    return {name: value for name, value in base.items() if _FOR_ENGINES.fullmatch(name)}


def environment(
    program: Program, base: Mapping[str, str], extra: Mapping[str, str], platform: str
) -> dict[str, str]:
    """The environment of a child: what an engine may need of `base`, and the user's `extra`."""
    result = {
        **inherited(base),
        _CHILD_MODE: "1",
        # Without this a failed assertion starts gdb, and the dying child keeps its memory
        # meanwhile.
        "GGML_NO_BACKTRACE": "1",
    }
    if program.folder is not None:
        library_path = "DYLD_LIBRARY_PATH" if platform == "darwin" else "LD_LIBRARY_PATH"
        folders = [str(program.folder), base.get(library_path, "")]
        result[library_path] = os.pathsep.join(folder for folder in folders if folder)
    return result | dict(extra)


def for_questions(environment: Mapping[str, str]) -> dict[str, str]:
    """The same for an engine that only answers a question: without child mode, in which the log has
    another form and no devices are printed."""
    return {name: value for name, value in environment.items() if name != _CHILD_MODE}


# Grouped by use: a process, its libraries, drivers, backends, threads, Python. Never a key.
_FOR_ENGINES = re.compile(
    r"(?!.*(?:KEY|TOKEN|SECRET|PASSW|CREDENTIAL))(?:"
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|TZDIR|TMPDIR|TEMP|TMP|LANG|LANGUAGE|SYSTEMROOT"
    r"|LD_(?:LIBRARY_PATH|PRELOAD|BIND_NOW)|LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX"
    r"|PYTHON(?:PATH|HOME|NOUSERSITE|MALLOC)"
    r"|(?:LC|XDG|DYLD|NIX|WSL|MALLOC|GLIBC|ASAN|UBSAN|TSAN|GGML|LLAMA"
    r"|CUDA|CUBLAS|NVIDIA|NCCL|HIP|HIPBLASLT|ROCR|ROCM|ROCBLAS|HSA|AMD|GPU|MUSA|ASCEND"
    r"|SYCL|ONEAPI|ONEDNN|DNNL|MKL|UR|ZE|ZES|NEO|IGC|INTEL|OPENVINO|OCL|POCL"
    r"|VK|MESA|RADV|ANV|LP|GALLIUM|LIBGL|DRI|EGL|MTL|METAL|MVK"
    r"|OMP|GOMP|KMP|OPENBLAS|BLIS|VECLIB)_\w+)"
)
