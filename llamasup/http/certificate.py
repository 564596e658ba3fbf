"""The certificate that is shown to clients, and its files, which are followed: who renews it needs
to tell nobody."""

from __future__ import annotations

import math
import ssl
from pathlib import Path
from typing import Final

from attrs import frozen

from llamasup import threads
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Server
from llamasup.errors import OperatorError
from llamasup.events import CertificateRefused, CertificateRenewed, Journal
from llamasup.files import digest_of, open_regular
from llamasup.http import tls

PAUSE: Final = 5.0
"""Seconds between two looks at the files. A change counts when the next look finds the same
content: certificate and key are written one after the other."""

_PATIENCE: Final = 10.0
"""Seconds for which the files' disk is waited for."""


@frozen
class Shown:
    """What connections over TLS are opened with."""

    files: tuple[Path, Path]
    digest: bytes | None
    context: ssl.SSLContext


class Certificate:
    """Holds what is shown to new connections. Open ones keep what they were shown."""

    def __init__(self, shown: Shown | None, journal: Journal) -> None:
        self._journal = journal
        self.show(shown)

    @property
    def context(self) -> ssl.SSLContext:
        """What a new connection is opened with. Only if there is a certificate."""
        assert self._shown is not None, "who listens for TLS has a certificate"
        return self._shown.context

    def show(self, shown: Shown | None) -> None:
        """Show this from now on."""
        self._shown = shown
        self._tried = shown and shown.digest

    async def follow(self, in_effect: InEffect) -> None:
        """Look at the files again and again, until cancelled. A certificate that cannot be used is
        told of once, and the one before stays."""
        before: bytes | None = None
        while True:
            await in_effect.pause(PAUSE if self._shown else math.inf)
            if self._shown is None:
                continue
            old = self._shown
            now = await threads.run(_digest, old.files)
            if now == before != self._tried:
                self._tried = now
                await self._renew(old)
            before = now

    async def _renew(self, old: Shown) -> None:
        try:
            shown = await threads.run(_read, old.files)
        except OperatorError as error:
            self._journal.tell(CertificateRefused(str(error)))
        else:
            if self._shown is old:  # else another configuration has come meanwhile
                self.show(shown)
                self._journal.tell(CertificateRenewed())


async def shown_by(settings: Server) -> Shown | None:
    """What these settings show to clients. Raises OperatorError if that cannot be used."""
    if settings.tls_certificate == "none":
        return None
    certificate = settings.tls_certificate
    files = (certificate, certificate if settings.tls_key == "none" else settings.tls_key)
    try:
        return await threads.run(_read, files, patience=_PATIENCE)
    except OSError as error:
        raise _unusable(certificate, error) from error


def _read(files: tuple[Path, Path]) -> Shown:
    for file in files:
        try:
            open_regular(file).close()
        except OSError as error:
            raise _unusable(file, error) from error
    digest = _digest(files)  # made first: a write in between must look like a change
    try:
        return Shown(files, digest, tls.showing(*files))
    except OSError as error:
        raise _unusable(files[0], error) from error


def _unusable(file: Path, error: OSError) -> OperatorError:
    return OperatorError(
        f"the certificate {file} cannot be used: {error.strerror}; see server.tls_certificate"
        " and server.tls_key"
    )


def _digest(files: tuple[Path, Path]) -> bytes | None:
    """A value that changes with the files' content; None if they cannot be read."""
    certificate, key = map(digest_of, files)
    return certificate + key if certificate and key else None
