"""The shape of `llamasup.toml`: one attrs class for each table, every key with its default.

Every key here has an effect; a new key is added together with the code that reads it. `structure`
turns text into these values. A key's metadata says under `write` what an operator may write there;
error messages about a file end with that. Under `was` stands the name that it had before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NewType, TypeAlias

from attrs import Attribute, field, fields, frozen

from llamasup.config.problems import Unfit
from llamasup.config.wording import shown

Seconds = NewType("Seconds", float)
"""A span of time, written `"90s"`, `"30m"`, `"1.5h"`, or as a number of seconds."""

Bytes = NewType("Bytes", int)
"""An amount of memory, written `"64MiB"`, `"1.5GB"`, or as a number of bytes."""

Params = NewType("Params", Mapping[str, Any])
"""Members of a request's JSON body."""

LONGEST_PARAM = 64
"""Characters of a param's name. In large bodies, keys that are longer are passed over."""
Moment = NewType("Moment", float)
"""A point in time, written as TOML writes dates and times; in seconds since 1970, and 0 is never.
"""

Memory: TypeAlias = Bytes | Mapping[str, Bytes] | Literal["auto"]
"""What a server takes: of the host's memory, or by device. "auto": as was measured last."""

Check = Callable[[object, "Attribute[Any]", Any], None]


def at_least(least: int) -> Check:
    """Refuse smaller numbers. Words that a key also accepts, such as "auto", pass."""

    def check(_table: object, _attribute: Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) and value < least:
            raise Unfit(f"{value} is less than {least}", f"write {least} or more")

    return check


def within(least: int, most: int) -> Check:
    """Refuse numbers outside these bounds."""

    def check(_table: object, _attribute: Attribute[Any], value: int) -> None:
        if not least <= value <= most:
            raise Unfit(f"{value} is out of range", f"write a number from {least} to {most}")

    return check


def port_or_zero(_table: object, _attribute: Attribute[Any], value: int) -> None:
    """Refuse what cannot be a port. What zero means is different for each key."""
    if not 0 <= value <= 65535:
        raise Unfit(f"{value} is not a port", "write one from 1 to 65535, or 0")


def above_zero(_table: object, _attribute: Attribute[Any], value: float) -> None:
    """For spans of time in which something has to succeed: with zero seconds it would always
    fail."""
    if value <= 0:
        raise Unfit(f"{value:g} leaves no time at all", 'write a longer one such as "30s"')


def _tuple_of_one_or_many(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def zero_or_at_least(least: float) -> Check:
    """For spans of time that may be zero, which turns something off, but must not be too short."""

    def check(_table: object, _attribute: Attribute[Any], value: float) -> None:
        if value and value < least:
            raise Unfit(f"{value:g} s is too short", f"write {least:g} or more, or 0 for never")

    return check


@frozen
class Server:
    """`[server]`: the public port, and how long clients may take."""

    listen: tuple[str, ...] = field(default="127.0.0.1:8080", converter=_tuple_of_one_or_many)
    tls_certificate: Path | Literal["none"] = "none"
    tls_key: Path | Literal["none"] = "none"
    default_model: str = ""
    unknown_model: Literal["refuse", "default"] = "refuse"
    path_prefixes: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("local",)
    hosts: tuple[str, ...] = ()
    max_connections: int | Literal["auto"] = field(
        default="auto", validator=at_least(1), metadata={"write": "a number such as 4096"}
    )
    max_head: Bytes = field(default=Bytes(64 << 10), validator=at_least(1))
    max_body: Bytes = field(default=Bytes(64 << 20), validator=at_least(1))
    max_buffered: Bytes = field(
        default=Bytes(256 << 20), validator=at_least(4 << 20), metadata={"was": "body_memory"}
    )
    head_timeout: Seconds = field(default=Seconds(15), validator=above_zero)
    body_timeout: Seconds = field(default=Seconds(30), validator=above_zero)
    idle_timeout: Seconds = field(default=Seconds(75), validator=above_zero)
    send_timeout: Seconds = field(default=Seconds(120), validator=above_zero)
    drain_timeout: Seconds = Seconds(30)
    keepalive_after: Seconds = field(default=Seconds(0), validator=zero_or_at_least(0.1))
    admin_key: str = field(default="", repr=False)
    keys_file: Path | Literal["none"] = "none"


@frozen
class KeySettings:
    """`[keys.NAME]`: a client's key, what it may use, and how much of it.

    When it is loaded, only `key_hash` is kept of the key itself (`config.secrets`).
    """

    key: str = field(default="", repr=False)
    key_env: str = ""
    key_file: Path | Literal["none"] = "none"
    key_hash: str = field(default="", repr=False)
    models: tuple[str, ...] = ("*",)
    operator: bool = False
    priority: int = field(default=0, validator=within(-4, 3))
    requests_per_minute: int = field(
        default=0, validator=at_least(0), metadata={"write": "a number, or 0: as many as it likes"}
    )
    tokens_per_minute: int = field(
        default=0, validator=at_least(0), metadata={"write": "a number, or 0: as many as it likes"}
    )
    at_once: int = field(
        default=0, validator=at_least(0), metadata={"write": "a number, or 0: as many as it likes"}
    )
    expires: Moment = Moment(0)


@frozen
class EngineSettings:
    """`[engine]`: which llama-server, and what every child of it gets."""

    command: str = "auto"
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(factory=dict)
    rpc: tuple[str, ...] = ()
    port_range_start: int = field(
        default=0,
        validator=port_or_zero,
        metadata={"write": "a port such as 12000, or 0 for Unix sockets"},
    )
    load_timeout: Seconds = field(default=Seconds(180), validator=above_zero)
    stop_grace: Seconds = Seconds(5)
    cache_ram: Bytes | Literal["auto"] = "auto"
    max_child_memory: Bytes = Bytes(0)


@frozen
class PoolSettings:
    """`[pool]`: which models are resident, and how long requests wait."""

    preload: tuple[str, ...] = ()
    max_loaded_models: int = field(
        default=0,
        validator=at_least(0),
        metadata={"write": "a number of models, or 0: memory alone decides"},
    )
    idle_unload: Seconds = Seconds(30 * 60)
    memory_reserve: Bytes | Literal["auto"] = "auto"
    turn: Seconds = Seconds(30)
    max_queue: int = field(
        default=256, validator=at_least(0), metadata={"write": "a number of requests"}
    )
    queue_timeout: Seconds = field(default=Seconds(600), validator=above_zero)
    queue_full_status: Literal[429, 503] = 429
    fair: Literal["turns", "tokens"] = "turns"
    balance: Literal["least-connections", "round-robin", "priority"] = "least-connections"
    sticky: bool = True


@frozen
class GroupSettings:
    """`[groups.NAME]`: which models may be loaded together, and which may not."""

    members: tuple[str, ...]
    together: bool = True
    exclusive: bool = False


@frozen
class LadderSettings:
    """`[ladder]`: what is tried when memory does not suffice, best first."""

    contexts: tuple[int, ...] = (32768, 24576, 16384, 12288, 8192, 4096, 2048)
    climb_interval: Seconds = Seconds(6 * 3600)


@frozen
class Recovery:
    """`[recovery]`: what llamasup does about children that die, hang or run out of memory."""

    max_replays: int = field(
        default=1, validator=at_least(0), metadata={"write": "a number of replays such as 1"}
    )
    patience: Seconds = Seconds(30)
    retirement: Seconds = Seconds(30)
    stall_timeout: Seconds = field(default=Seconds(180), validator=above_zero)
    health_interval: Seconds = field(default=Seconds(30), validator=above_zero)
    leftover_patience: Seconds = Seconds(0)


@frozen
class RungSettings:
    """One entry of `models.NAME.ladder`: what this rung changes of the model's settings."""

    context_size: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of tokens such as 8192, or "auto"'},
    )
    cache_type: str = "auto"
    gpu_layers: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(-1),
        metadata={"write": 'a number of layers such as 20, -1 for all, or "auto"'},
    )


@frozen
class VariantSettings:
    """`[models.NAME.variants.VARIANT]`: the same child as NAME:VARIANT, with other params."""

    aliases: tuple[str, ...] = ()
    set_params: Params = field(factory=lambda: Params({}))
    default_params: Params = field(factory=lambda: Params({}))
    strip_params: tuple[str, ...] = ()


def variant_name(model: str, variant: str) -> str:
    """The name by which clients ask for a variant."""
    return f"{model}:{variant}"


@frozen
class Offer:
    """What every `[models.NAME]` may say, whatever answers for the model: how it is listed, what
    its requests may ask, and how long it stays."""

    aliases: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    owner: str = "llamasup"
    metadata: Mapping[str, str] = field(factory=dict)
    unlisted: bool = False
    unloadable: bool = True
    idle_unload: Seconds | Literal["auto"] = "auto"
    env: Mapping[str, str] = field(factory=dict)
    set_params: Params = field(factory=lambda: Params({}))
    default_params: Params = field(factory=lambda: Params({}))
    strip_params: tuple[str, ...] = ()
    variants: Mapping[str, VariantSettings] = field(factory=dict)


@frozen
class ModelSettings(Offer):
    """`[models.NAME]` with a `path`: a model's file, and how its llama-servers are launched."""

    path: Path = field(kw_only=True)
    purpose: Literal["auto", "generate", "embed", "rerank"] = "auto"
    rpc: tuple[str, ...] = ()
    mmproj: Path | Literal["none"] = "none"
    context_size: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of tokens such as 8192, or "auto"'},
    )
    cache_type: str = "auto"
    parallel: int = field(
        default=1, validator=at_least(1), metadata={"write": "a number of slots such as 1"}
    )
    gpu_layers: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(-1),
        metadata={"write": 'a number of layers such as 20, -1 for all, or "auto"'},
    )
    threads: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of threads such as 8, or "auto"'},
    )
    batch_size: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of tokens such as 512, or "auto"'},
    )
    ladder: tuple[RungSettings, ...] = ()
    overcommit: bool = False
    extra_args: tuple[str, ...] = ()
    engine: str = ""
    devices: tuple[str, ...] = ()


def page_or_none(_table: object, _attribute: Attribute[Any], value: str) -> None:
    """Refuse what is not the path of a page. What "" means is up to the key."""
    if value and not re.fullmatch(r"/[!-~]*", value):
        raise Unfit(f"{shown(value)} is not the path of a page", 'write one such as "/health"')


@frozen
class ServerSettings(Offer):
    """`[models.NAME]` with a `command`: any HTTP server, and how it is started and asked."""

    command: tuple[str, ...] = field(kw_only=True)
    health: str = field(default="", validator=page_or_none)
    memory: Memory = "auto"
    slots: int = field(
        default=1, validator=at_least(1), metadata={"write": "a number of requests such as 1"}
    )


AnyModel: TypeAlias = ModelSettings | ServerSettings


@frozen
class EndpointSettings:
    """One entry of `[[endpoints]]`: a server elsewhere, and which of its models are offered."""

    name: str
    url: str
    key: str = field(default="", repr=False)
    key_env: str = ""
    key_file: Path | Literal["none"] = "none"
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    ca_file: Path | Literal["none"] = "none"
    models: tuple[str, ...] = field(default=("*",), converter=_tuple_of_one_or_many)
    rename: Mapping[str, str] = field(factory=dict)
    priority: int = 0
    max_in_flight: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of requests such as 4, or "auto"'},
    )
    cold_start_timeout: Seconds = Seconds(60)
    connect_timeout: Seconds = field(default=Seconds(5), validator=above_zero)


@frozen
class Discover:
    """`[discover]`: the folders whose models need no table of their own."""

    folders: tuple[Path, ...] = ()
    context_size: int | Literal["auto"] = field(
        default="auto",
        validator=at_least(1),
        metadata={"write": 'a number of tokens such as 8192, or "auto"'},
    )
    parallel: int = field(
        default=1, validator=at_least(1), metadata={"write": "a number of slots such as 1"}
    )
    hide_defective: bool = False


@frozen
class Folders:
    """`[folders]`: where llamasup keeps its files."""

    cache: Path | Literal["auto"] = "auto"
    run: Path | Literal["auto"] = "auto"
    state: Path | Literal["auto"] = "auto"


@frozen
class Log:
    """`[log]`: what llamasup itself writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@frozen
class Config:
    """The whole file."""

    server: Server = field(factory=Server)
    engine: EngineSettings = field(factory=EngineSettings)
    pool: PoolSettings = field(factory=PoolSettings)
    ladder: LadderSettings = field(factory=LadderSettings)
    recovery: Recovery = field(factory=Recovery)
    models: Mapping[str, AnyModel] = field(factory=dict)
    groups: Mapping[str, GroupSettings] = field(factory=dict)
    keys: Mapping[str, KeySettings] = field(factory=dict)
    discover: Discover = field(factory=Discover)
    endpoints: tuple[EndpointSettings, ...] = ()
    folders: Folders = field(factory=Folders)
    log: Log = field(factory=Log)


def new_names(table: type[Any]) -> dict[str, str]:
    """The keys of this table that once had another name, by that name."""
    return {
        attribute.metadata["was"]: attribute.name
        for attribute in fields(table)
        if "was" in attribute.metadata
    }
