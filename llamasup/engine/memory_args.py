"""What an operator's own arguments for llama-server say about memory. Pure.

They come after ours, and the last argument counts. A few of them are understood here. Of many
others we only know that they matter; then the engine has to be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

CONTEXT: Final = ("-c", "--ctx-size")
BATCH: Final = ("-b", "--batch-size")
MICRO_BATCH: Final = ("-ub", "--ubatch-size")
SLOTS: Final = ("-np", "--parallel")
PROJECTOR: Final = ("-mm", "--mmproj")
UNIFIED: Final = ("-kvu", "--kv-unified")
NOT_UNIFIED: Final = ("-no-kvu", "--no-kv-unified")
FIT: Final = ("-fit", "--fit")
CACHE_RAM: Final = ("-cram", "--cache-ram")
LOAD_MODE: Final = ("-lm", "--load-mode")

_IN_MEMORY: Final = {"--no-mmap", "--mlock"}
_MAPPED: Final = {None, "auto", "mmap"}

_UNLIMITED: Final = 1 << 60

RPC: Final = ("--rpc",)
_RPC_BY_ENVIRONMENT: Final = "LLAMA_ARG_RPC"
DEVICES: Final = ("-dev", "--device")
_DEVICES_BY_ENVIRONMENT: Final = "LLAMA_ARG_DEVICE"
_NO_DEVICE: Final = "none"
_LAYERS: Final = ("-ngl", "--gpu-layers", "--n-gpu-layers")
_SPLIT: Final = ("-sm", "--split-mode", "-ts", "--tensor-split", "-mg", "--main-gpu")
_PLACES: Final = ("-ot", "--override-tensor")

_CONCERN_MEMORY: Final = {
    *CONTEXT,
    *BATCH,
    *MICRO_BATCH,
    *SLOTS,
    *PROJECTOR,
    *UNIFIED,
    *NOT_UNIFIED,
    *("--kv-unified-per-slot", "-fa", "--flash-attn", "--swa-full"),
    *("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"),
    *("-kvo", "--kv-offload", "-nkvo", "--no-kv-offload"),
    *("--repack", "-nr", "--no-repack", "-lm", "--load-mode", "--mlock", "--no-mmap"),
    *(*_LAYERS, *DEVICES, *RPC, *_PLACES),
    *("-cmoe", "--cpu-moe", "-ncmoe", "--n-cpu-moe", "-ncffn", "--n-cpu-ffn"),
    *_SPLIT,
    *("-mmu", "--mmproj-url", "--mmproj-auto", "--no-mmproj-offload", "--override-kv"),
    *("-md", "--model-draft", "--spec-draft-model", "--lora", "--lora-scaled"),
}


def concern_memory(args: Sequence[str]) -> bool:
    """Does any of the arguments change how much memory is needed?"""
    return not _CONCERN_MEMORY.isdisjoint(args)


def word_after(args: Sequence[str], flags: Sequence[str]) -> str | None:
    """The value of an option: the argument after its last occurrence."""
    values = [value for flag, value in pairwise(args) if flag in flags]
    return values[-1] if values else None


def number_after(args: Sequence[str], flags: Sequence[str]) -> int | None:
    """The same, if it is a number above zero. For llama-server zero means "as the model says"."""
    value = word_after(args, flags) or ""
    return int(value) if value.isdecimal() and int(value) else None


def maps_weights(args: Sequence[str]) -> bool:
    """Are the weights mapped from the file, so that the system can read them again when needed?"""
    return _IN_MEMORY.isdisjoint(args) and word_after(args, LOAD_MODE) in _MAPPED


def cache_ram(args: Sequence[str], otherwise: int) -> int:
    """The most bytes that the prompt cache may take; `otherwise` if the arguments do not say."""
    wanted = word_after(args, CACHE_RAM)
    if wanted is None or not wanted.lstrip("-").isdecimal():
        return otherwise
    return _UNLIMITED if int(wanted) < 0 else int(wanted) << 20


def is_unified(args: Sequence[str]) -> bool:
    """Do all slots share one cache? As we set the number of slots, only if the arguments say so."""
    mentions = [arg for arg in args if arg in UNIFIED + NOT_UNIFIED]
    return bool(mentions) and mentions[-1] in UNIFIED


def devices(args: Sequence[str], environment: Mapping[str, str]) -> Sequence[str] | None:
    """The names of the devices that the operator allows; None if all are allowed."""
    named = word_after(args, DEVICES) or environment.get(_DEVICES_BY_ENVIRONMENT)
    if named is None:
        return None
    return [name.strip() for name in named.split(",") if name.strip() != _NO_DEVICE]


def fix_the_split(args: Sequence[str]) -> bool:
    """Do the arguments fix how much goes to which device, whatever is free there?"""
    return not {*_SPLIT, *_PLACES}.isdisjoint(args)


def fix_the_layers(args: Sequence[str]) -> bool:
    """Do the arguments fix how many layers go to the devices?"""
    return not set(_LAYERS).isdisjoint(args)


def servers_of(named: str | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The RPC servers in this list, or else in the environment."""
    names = (named or environment.get(_RPC_BY_ENVIRONMENT, "")).split(",")
    return tuple(name.strip() for name in names if name.strip())
