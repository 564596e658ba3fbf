"""What one side seals, the other opens, however the bytes are cut; what is wrong is told."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from llamasup.http.tls import Session, TlsFailed, trusting

Cut = Callable[[bytes], Iterator[bytes]]


@pytest.fixture(scope="module")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("engine.example", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trust(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return trusting(file)


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def agreed(
    serving: ssl.SSLContext, trust: ssl.SSLContext, name: str = "engine.example", cut: Cut = whole
) -> tuple[Session, Session]:
    """A client's and a server's side after their handshake."""
    client, server = Session(trust, name), Session(serving)
    client_agrees = server_agrees = False
    data = b""
    while not (client_agrees and server_agrees):
        for part in cut(data):
            client_agrees = client_agrees or client.agree(part)
        client_agrees = client_agrees or client.agree(b"")
        for part in cut(client.due()):
            if server_agrees:
                assert not server.opened(part)
            else:
                server_agrees = server.agree(part)
        data = server.due()
    assert not client.opened(data)
    return client, server


def chunks(sizes: list[int]) -> Cut:
    """Cuts into parts of these sizes, again and again."""

    def cut(data: bytes) -> Iterator[bytes]:
        turn = 0
        while data:
            size = sizes[turn % len(sizes)]
            yield data[:size]
            data = data[size:]
            turn += 1

    return cut


sizes = st.lists(st.integers(1, 40_000), min_size=1, max_size=8)


@settings(max_examples=50)
@given(
    st.lists(st.binary(max_size=300) | st.integers(0, 70_000).map(bytes), max_size=5),
    sizes | st.just([1]),
)
def test_what_is_sealed_is_opened_whole_however_it_is_cut(
    serving: ssl.SSLContext, trust: ssl.SSLContext, contents: list[bytes], cuts: list[int]
) -> None:
    cut = chunks(cuts if sum(map(len, contents)) < 5_000 else [max(cuts) + 500])
    client, server = agreed(serving, trust, cut=cut)
    for sender, receiver in ((client, server), (server, client)):
        sealed = b"".join(map(sender.sealed, contents)) + sender.farewell()
        opened = b"".join(bytes(receiver.opened(part)) for part in cut(sealed))
        assert opened == b"".join(contents)
        assert receiver.ended


def test_both_sides_speak_http_1_1_and_tls_1_2_at_least(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    client, _ = agreed(serving, trust)
    assert client._tls.selected_alpn_protocol() == "http/1.1"
    assert trust.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_server_is_known_by_its_address_if_it_has_no_name(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    agreed(serving, trust, "127.0.0.1")


def test_a_server_of_another_name_is_not_trusted(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    with pytest.raises(TlsFailed, match=r"not trusted: Hostname mismatch.*other\.example"):
        agreed(serving, trust, "other.example")


def test_a_server_whose_authority_is_unknown_is_not_trusted(
    serving: ssl.SSLContext, tmp_path: Path
) -> None:
    stranger = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    for trust in (trusting(None), trusting(stranger)):
        with pytest.raises(TlsFailed, match="its certificate is not trusted"):
            agreed(serving, trust)


def test_a_peer_that_is_not_trusted_is_told(serving: ssl.SSLContext) -> None:
    client, server = Session(trusting(None), "engine.example"), Session(serving)
    client.agree(b"")
    server.agree(client.due())
    with pytest.raises(TlsFailed):
        client.agree(server.due())
    with pytest.raises(TlsFailed, match="alert unknown ca"):
        server.agree(client.due())


def test_what_is_no_tls_cannot_be_agreed_with(serving: ssl.SSLContext) -> None:
    with pytest.raises(TlsFailed, match="no agreement about TLS"):
        Session(serving).agree(b"GET / HTTP/1.1\r\n\r\n")


def test_bytes_that_were_changed_on_their_way_are_not_opened(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    client, server = agreed(serving, trust)
    good, bad = client.sealed(b"good"), bytearray(client.sealed(b"bad"))
    bad[-1] ^= 1
    assert server.opened(good + bad) == b"good"
    with pytest.raises(TlsFailed):
        server.opened(b"")


def test_a_side_that_was_told_the_end_may_still_send(
    serving: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    client, server = agreed(serving, trust)
    server.opened(client.farewell())
    assert server.ended
    assert client.opened(server.sealed(b"the answer")) == b"the answer"


def test_a_file_that_holds_no_authority_is_an_os_error(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    for file in (empty, tmp_path / "none.pem"):
        with pytest.raises(OSError, match=r"."):
            trusting(file)


def test_a_session_holds_no_socket(serving: ssl.SSLContext) -> None:
    session = Session(serving)
    assert not any(isinstance(value, socket.socket) for value in vars(session).values())
