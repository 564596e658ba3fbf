"""TLS without sockets: one session with one peer, and what both sides of it trust.

What came goes in, what is to be sent comes out; who holds the socket moves the bytes. So waiting,
back-pressure and leaving are the same with TLS and without (`connection`, `wire`), and a plain
connection pays nothing.
"""

from __future__ import annotations

import errno
import ssl
from contextlib import suppress
from pathlib import Path
from typing import cast

_AT_ONCE = 64 << 10
_BUFFER = bytearray(_AT_ONCE)
"""Shared by all reads, as `wire`'s is."""

_PROTOCOL = "http/1.1"

Content = bytes | bytearray | memoryview


class TlsFailed(ConnectionError):
    """The peer breaks TLS's rules, is not trusted, or does not trust us. It can only be left."""


class Session:
    """One connection's TLS. After an error, `due` may still hold a last message for the peer."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None = None) -> None:
        """The client's side if the server has a name, else the server's side."""
        self._came = ssl.MemoryBIO()
        self._due = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._came,
            self._due,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self.ended = False
        """Has the peer said that it will send no more?"""

    def agree(self, data: bytes) -> bool:
        """Go on with the handshake, for which `data` came. Returns whether it is done.

        Raises TlsFailed.
        """
        self._came.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise _failed(f"its certificate is not trusted: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise _failed(f"no agreement about TLS: {_reason(error)}") from error
        return True

    def opened(self, data: bytes) -> bytearray:
        """The content of `data`, which came. It may be empty. Raises TlsFailed."""
        self._came.write(data)
        content = bytearray()
        try:
            while size := cast(int, self._tls.read(_AT_ONCE, _BUFFER)):
                content += memoryview(_BUFFER)[:size]
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # raised instead if this side has ended, too
            self.ended = True
        except ssl.SSLError as error:
            if not content:  # else it is raised again by the next call
                raise _failed(f"what came is no TLS: {_reason(error)}") from error
        return content

    def sealed(self, content: Content) -> bytes:
        """What is to be sent, so that the peer gets `content`. Raises TlsFailed."""
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            raise _failed(f"TLS has ended: {_reason(error)}") from error
        return self._due.read()

    def farewell(self) -> bytes:
        """What is to be sent at last, so that the peer knows that nothing was cut off."""
        with suppress(ssl.SSLError):  # the peer has not said the same, or the handshake is not done
            self._tls.unwrap()
        return self._due.read()

    def due(self) -> bytes:
        """What TLS itself has to send: it answers its peer, or says what is wrong."""
        return self._due.read()


class Plain:
    """What a session is for a peer that turned out not to speak TLS: nothing is changed."""

    ended = True

    def agree(self, data: bytes) -> bool:
        """There is nothing to agree about."""
        return True

    def opened(self, data: bytes) -> bytearray:
        """Nothing more is heard from this peer."""
        return bytearray()

    def sealed(self, content: Content) -> Content:
        """As it is."""
        return content

    def farewell(self) -> bytes:
        """None."""
        return b""

    due = farewell


def showing(certificate: Path, key: Path) -> ssl.SSLContext:
    """How clients are spoken to, with this certificate and its key; one file may hold both.

    Reads files: call it in a worker thread. Raises OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        why = (
            "the key does not belong to the certificate"
            if error.reason == "KEY_VALUES_MISMATCH"
            else f"there is no certificate with its key, in PEM ({_reason(error)})"
        )
        raise OSError(errno.EINVAL, why) from error
    return _of_today(context)


def _no_password() -> str:
    """Instead of OpenSSL, which would ask for one at the terminal."""
    why = "the key is under a password, for which nobody can be asked: store it without one"
    raise OSError(errno.EACCES, why)


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """How servers are checked: against the system's authorities, or those in a file.

    Reads files: call it in a worker thread, once. Raises OSError.
    """
    context = ssl.create_default_context(cafile=authorities)
    return _of_today(context)


def trusting_anybody() -> ssl.SSLContext:
    """For questions to llamasup itself on this machine, whatever name its certificate is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _of_today(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([_PROTOCOL])
    return context


def _failed(why: str) -> TlsFailed:
    return TlsFailed(errno.EPROTO, why)


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
