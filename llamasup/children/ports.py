"""The ports that children are told to listen on: found free, and never given to two of them."""

from __future__ import annotations

import socket
from itertools import repeat
from typing import Final, Protocol
from weakref import WeakSet

from llamasup.config.addresses import Address, TcpAddress
from llamasup.errors import ModelUnavailable
from llamasup.shortages import is_shortage
from llamasup.states import ChildState

LOOPBACK: Final = "127.0.0.1"
ANY_PORT: Final = TcpAddress(LOOPBACK, 0)

_HIGHEST: Final = 65535
_MOST_TRIES: Final = 64


class Holder(Protocol):
    """A child that was told to listen at an address."""

    state: ChildState

    @property
    def address(self) -> Address:
        """The address."""


class Ports:
    """The ports of the children that live. One that is still starting has not bound its port
    yet."""

    def __init__(self) -> None:
        self._holders: WeakSet[Holder] = WeakSet()

    def give(self, holder: Holder) -> None:
        """The port at this child's address, if it has one, is taken until the child is gone."""
        self._holders.add(holder)

    def free(self, first: int = 0) -> TcpAddress:
        """A port that is free now, the lowest from `first` on; any if that is 0. Raises
        ModelUnavailable.

        If another program takes it before the child does, the child cannot start, and the next one
        gets another port.
        """
        given = {
            holder.address.port
            for holder in self._holders
            if isinstance(holder.address, TcpAddress) and holder.state is not ChildState.GONE
        }
        for port in range(first, _HIGHEST + 1) if first else repeat(0, _MOST_TRIES):
            if port not in given and (bound := _bound(port)) and bound not in given:
                return TcpAddress(LOOPBACK, bound)
        hint = " from engine.port_range_start upwards: write a lower one, or 0" if first else ""
        raise ModelUnavailable(f"no port is free{hint}")


def _bound(port: int) -> int:
    """This port, or any for 0, if it can be bound; else 0. Raises ModelUnavailable."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((LOOPBACK, port))
            bound: int = trial.getsockname()[1]
            return bound
    except OSError as error:
        if is_shortage(error):
            raise ModelUnavailable(f"no port can be looked for: {error.strerror}") from error
    return 0
