"""Where an instance elsewhere is: `http://host:8080`, `https://…`, `unix:/path` or
`dns+http://name:8080`, as one value."""

from __future__ import annotations

import re

from attrs import frozen

from llamasup.config.addresses import UnixAddress, parse_address
from llamasup.config.problems import Unfit

_URL = re.compile(
    r"(?P<each>dns\+)? (?P<scheme>https?) ://"
    r"(?: \[(?P<ipv6>[0-9A-Fa-f:.]+)\] | (?P<host>[A-Za-z0-9._-]+) ) (?: :(?P<port>[0-9]{1,5}) )?"
    r"(?P<path> (?: /[^/\s?#]+ )* ) /?",
    re.VERBOSE,
)
_FORMS = (
    'write one such as "http://gpubox:8080", "https://gpubox", "unix:/run/llama.sock" or,'
    ' for every address that a name has, "dns+http://gpus:8080"'
)


@frozen
class Url:
    """Where to ask. A `socket` needs no name; of a name without a port, DNS is asked for SRV."""

    host: str = ""
    port: int | None = None
    tls: bool = False
    each: bool = False
    """Is every address of the name an instance of its own?"""

    path: str = ""
    """What all paths begin with there; without a slash at its end."""

    socket: UnixAddress | None = None

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port is None or self.port == (443 if self.tls else 80)
        return (host if usual else f"{host}:{self.port}") or "localhost"


def parse_url(text: str) -> Url:
    """The URL that `text` writes. Raises `Unfit`, which says how to write one."""
    if text.startswith("unix:"):
        address = parse_address(text)
        assert isinstance(address, UnixAddress)
        return Url(socket=address)
    matched = _URL.fullmatch(text)
    if matched is None:
        raise Unfit(f'"{text}" is not the URL of an instance', _FORMS)
    if (suffix := re.search(r"/v1/?$", text)) is not None:
        raise Unfit(f'"{text}" ends with a path of the API', f"leave out {suffix[0]}")
    each, tls, port = bool(matched["each"]), matched["scheme"] == "https", matched["port"]
    if port and not 0 < int(port) <= 65535:
        raise Unfit(f'"{text}" has no port between 1 and 65535', _FORMS)
    return Url(
        host=matched["ipv6"] or matched["host"],
        port=int(port) if port else None if each else (443 if tls else 80),
        tls=tls,
        each=each,
        path=matched["path"],
    )
