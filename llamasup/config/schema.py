"""The shape of `llamasup.toml`: one attrs class a table, every key with its default.

Every key here takes effect; a key joins together with the capability that reads it. How text
becomes these values (durations, sizes, the environment) is `load`'s concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NewType

from attrs import field, frozen, validators

Seconds = NewType("Seconds", float)
"""A span of time, written `"90s"`, `"30m"`, `"1.5h"`, or as a number of seconds."""

Bytes = NewType("Bytes", int)
"""An amount of memory, written `"64MiB"`, `"1.5GB"`, or as a number of bytes."""

at_least_one = validators.ge(1)


def _tuple_of_one_or_many(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen
class Server:
    """`[server]`: the public port, and how long clients may take."""

    listen: tuple[str, ...] = field(default="127.0.0.1:8080", converter=_tuple_of_one_or_many)
    default_model: str = ""
    path_prefixes: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("*",)
    max_connections: int = field(default=4096, validator=at_least_one)
    max_head: Bytes = Bytes(64 << 10)
    max_body: Bytes = Bytes(64 << 20)
    head_timeout: Seconds = Seconds(15)
    body_timeout: Seconds = Seconds(30)
    idle_timeout: Seconds = Seconds(75)
    send_timeout: Seconds = Seconds(120)
    drain_timeout: Seconds = Seconds(30)


@frozen
class EngineSettings:
    """`[engine]`: which llama-server, and what every child of it gets."""

    command: str = "auto"
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(factory=dict)
    port_range_start: int = field(
        default=0, validator=validators.and_(validators.ge(0), validators.le(65535))
    )
    load_timeout: Seconds = Seconds(180)
    stop_grace: Seconds = Seconds(5)


@frozen
class PoolSettings:
    """`[pool]`: which models are resident."""

    preload: tuple[str, ...] = ()


@frozen
class ModelSettings:
    """`[models.NAME]`: one model and how its children are launched."""

    path: Path
    aliases: tuple[str, ...] = ()
    context_size: int | Literal["auto"] = "auto"
    cache_type: str = "auto"
    parallel: int = field(default=1, validator=at_least_one)
    gpu_layers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    extra_args: tuple[str, ...] = ()


@frozen
class Folders:
    """`[folders]`: where llamasup keeps its files."""

    cache: Path | Literal["auto"] = "auto"
    run: Path | Literal["auto"] = "auto"


@frozen
class Log:
    """`[log]`: what llamasup itself writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"


@frozen
class Config:
    """The whole file."""

    server: Server = field(factory=Server)
    engine: EngineSettings = field(factory=EngineSettings)
    pool: PoolSettings = field(factory=PoolSettings)
    models: Mapping[str, ModelSettings] = field(factory=dict)
    folders: Folders = field(factory=Folders)
    log: Log = field(factory=Log)
