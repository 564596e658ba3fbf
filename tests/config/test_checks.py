"""Addresses and certificates that contradict each other, in the exact words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.complaints import complaints

ADDRESSES = (
    'write one such as "127.0.0.1:8080", "[::1]:8080", ":8080", "https://:8443"'
    ' or "unix:/run/llamasup.sock"'
)
WRONG = {
    '[server]\nlisten = "8080"': f'server.listen: "8080" is not an address; {ADDRESSES}',
    '[server]\nlisten = [":1", "x"]': f'server.listen[1]: "x" is not an address; {ADDRESSES}',
    "[server]\nlisten = []": 'server.listen: this lists no address; write one such as ":8080"',
    '[server]\nlisten = [":1", "https://:2"]': (
        "server.listen[1]: this address needs a certificate;"
        " write its files as server.tls_certificate and tls_key"
    ),
    '[server]\ntls_certificate = "c"': (
        "server.tls_certificate: no address shows this certificate;"
        ' let server.listen have one such as "https://:8443"'
    ),
    '[server]\ntls_key = "k"': (
        "server.tls_key: this key has no certificate; write server.tls_certificate, too"
    ),
    '[server]\npath_prefixes = ["llama"]': (
        'server.path_prefixes[0]: "llama" is not the beginning of a path; '
        'write one such as "/llama", without a slash at its end'
    ),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.items())
def test_a_contradiction_is_told_with_its_place_its_key_and_its_cure(
    folder: Path, text: str, complaint: str
) -> None:
    assert complaints(text) == [f"llamasup.toml: {complaint}"]
