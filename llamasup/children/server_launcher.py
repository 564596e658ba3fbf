"""Prepares children that are no llama-servers: their command line, and where they listen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Final

from llamasup import threads
from llamasup.children.child import Child, Launch
from llamasup.children.manners import OtherServer
from llamasup.children.ports import Ports
from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.placeholders import MODEL, PORT, SOCKET, filled, holds
from llamasup.config.schema import ServerSettings
from llamasup.engine.argv import inherited
from llamasup.models.headers import stamp
from llamasup.processes.run_folder import RunFolder

_BRIEFLY: Final = 2.0
_MOST_THREADS: Final = 4


class ServerLauncher:
    """Prepares children by the command lines that the operator wrote."""

    def __init__(
        self,
        in_effect: InEffect,
        environ: Mapping[str, str],
        run_folder: RunFolder,
        ports: Ports,
    ) -> None:
        self._in_effect = in_effect
        self._environ = environ
        self._run_folder = run_folder
        self._ports = ports
        self._in_passing = threads.Lane(_MOST_THREADS)

    def child(self, model: str, settings: ServerSettings) -> Child:
        """The next child of `model`, not yet started. Raises ModelUnavailable if no port is
        free."""
        address = self._address(settings)
        port = str(address.port) if isinstance(address, TcpAddress) else ""
        path = address.path if isinstance(address, UnixAddress) else ""
        values = {PORT: port, SOCKET: path, MODEL: model}
        launch = Launch(
            model=model,
            argv=[filled(word, values) for word in settings.command],
            environment={
                **inherited(self._environ),
                **{name: filled(value, values) for name, value in settings.env.items()},
            },
            address=address,
            slots=settings.slots,
            in_effect=self._in_effect,
            manners=OtherServer(settings.health),
        )
        child = Child(launch, self._run_folder)
        self._ports.give(child)
        return child

    def _address(self, settings: ServerSettings) -> Address:
        if holds((*settings.command, *settings.env.values()), SOCKET):
            return UnixAddress(str(self._run_folder.next_socket()))
        return self._ports.free()

    async def circumstances(self, settings: ServerSettings) -> object:
        """A value that changes when the program does, or a file that the command line names; None
        if a disk does not answer soon."""
        try:
            return await self._in_passing.run(
                _stamps, settings.command, {**self._environ, **settings.env}, patience=_BRIEFLY
            )
        except OSError:
            return None


def _stamps(command: tuple[str, ...], environ: Mapping[str, str]) -> object:
    program = shutil.which(command[0], path=environ.get("PATH")) or command[0]
    return program, stamp([program, *(word for word in command[1:] if os.sep in word)])
