"""The devices that the engine has, as `--list-devices` prints them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from llamasup.engine.argv import for_questions
from llamasup.engine.locate import Engine
from llamasup.engine.memory_args import RPC, servers_of
from llamasup.memory.listing import Listing, place_of
from llamasup.memory.readings import Device, Kind

_FLAG: Final = "--list-devices"
_HEADING: Final = "Available devices:"
_BACKENDS: Final = {"CUDA": Kind.NVIDIA, "ROCm": Kind.AMD, "Metal": Kind.APPLE, "MTL": Kind.APPLE}
_REMOTE: Final = "RPC"
_MIB: Final = 1 << 20


def listing(
    engine: Engine, identity: object, servers: str | None, environment: Mapping[str, str]
) -> Listing | None:
    """How to make the engine list its devices; None if it cannot list them.

    `servers` are the RPC servers of its arguments; `identity` changes when its program does.
    """
    if _FLAG not in engine.flags:
        return None
    # They must come first, or the engine lists devices without them.
    remote = (RPC[0], servers) if servers else ()
    surroundings = for_questions(environment)
    return Listing(
        engine=f"{engine.version} {identity}",
        command=(*engine.program.command, *remote, _FLAG),
        surroundings=tuple(sorted(surroundings.items())),
        devices_in=devices_in,
        servers=servers_of(servers, surroundings),
    )


def devices_in(text: str) -> list[Device] | None:
    """The devices that `--list-devices` printed, for all backends; None if that is no answer.

    An RPC server's device is named by its position in a list of arguments. Its identity is the
    server's address, and its number there.
    """
    if _HEADING not in text:
        return None
    rows = re.findall(r"(?m)^  (\D+)(\d*): (.+) \((\d+) MiB, (\d+) MiB free\)\r?$", text)
    seen: Counter[str] = Counter()
    devices = []
    for backend, index, label, total, free in rows:
        place = ""
        if backend == _REMOTE:
            seen[label] += 1
            place = place_of(label, seen[label])
        devices.append(
            Device(
                f"{backend}{index}",
                _BACKENDS.get(backend, Kind.OTHER),
                int(total) * _MIB,
                int(free) * _MIB,
                label,
                place=place,
            )
        )
    return devices
