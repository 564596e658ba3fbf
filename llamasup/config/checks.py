"""Checks what the type of a key cannot tell: addresses, names, keys that contradict each other.

The checks read what was written, not the finished `Config`, so one bad key does not hide others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamasup.config.addresses import parse_address
from llamasup.config.endpoint_checks import bad_endpoints
from llamasup.config.model_checks import bad_models
from llamasup.config.name_checks import bad_names
from llamasup.config.problems import Refusal, Unfit
from llamasup.config.tree import Tree
from llamasup.config.wording import shown


def contradictions(tree: Tree) -> Iterator[Refusal]:
    """Everything that the checks refuse."""
    yield from _bad_addresses(tree)
    yield from _bad_certificates(tree)
    yield from bad_names(tree)
    yield from bad_models(tree)
    yield from bad_endpoints(tree)


def _bad_addresses(tree: Tree) -> Iterator[Refusal]:
    if tree.get("server", "listen") in ([], ()):
        yield ("server", "listen"), Unfit("this lists no address", 'write one such as ":8080"')
    for key, text in tree.texts("server", "listen"):
        try:
            parse_address(text)
        except Unfit as unfit:
            yield key, unfit
    for key, prefix in tree.texts("server", "path_prefixes"):
        if not re.fullmatch(r"(/[^/\s?#]+)+", prefix):
            what = f"{shown(prefix)} is not the beginning of a path"
            yield key, Unfit(what, 'write one such as "/llama", without a slash at its end')


def _bad_certificates(tree: Tree) -> Iterator[Refusal]:
    """A certificate is for the addresses that say https, and they need it."""
    certificate, key = ("server", "tls_certificate"), ("server", "tls_key")
    has_certificate = tree.get(*certificate) not in (None, "none")
    secure = [at for at, text in tree.texts("server", "listen") if text.startswith("https://")]
    if secure and not has_certificate:
        what = "this address needs a certificate"
        yield secure[0], Unfit(what, "write its files as server.tls_certificate and tls_key")
    if has_certificate and not secure:
        what = "no address shows this certificate"
        yield certificate, Unfit(what, 'let server.listen have one such as "https://:8443"')
    if tree.get(*key) not in (None, "none") and not has_certificate:
        yield key, Unfit("this key has no certificate", "write server.tls_certificate, too")
