"""How one request has come so far: its model, its waiting, its replays. The head of its answer says
so. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from llamasup.http.requests import Request
from llamasup.upstream import Signature, in_header


class Way:
    """The way of one request, which begins now."""

    def __init__(self, request: Request, clock: Callable[[], float]) -> None:
        """The `clock` counts seconds."""
        self.model = ""
        """The model that the request is for, once that is known."""

        self.replays = 0
        """How often the request was sent again."""

        self._request = request
        self._clock = clock
        self._came = clock()
        self._waited = 0.0
        self._waits_since: float | None = None
        self._signature: Signature | None = None

    @property
    def age(self) -> float:
        """Seconds since the request came."""
        return self._clock() - self._came

    def waits(self) -> None:
        """The request waits from now on for an instance that answers."""
        self._signature = None
        self._waits_since = self._clock()

    def goes_on(self, signature: Signature | None) -> None:
        """The wait is over: this instance will answer."""
        self._waited += self._since(self._waits_since, self._clock())
        self._waits_since = None
        self._signature = signature

    def lines(self) -> list[bytes]:
        """Header lines with all that is known by now."""
        id_, now = self._request.id, self._clock()
        took = round((now - self._came) * 1000)
        lines = [b"X-Llamasup-Request-Id: %b\r\nX-Llamasup-Time-Ms: %d" % (id_, took)]
        if self.model:
            waited = round((self._waited + self._since(self._waits_since, now)) * 1000)
            numbers = waited, self.replays
            lines.append(b"X-Llamasup-Queue-Ms: %d\r\nX-Llamasup-Replays: %d" % numbers)
        if self._signature:
            lines.append(self._signature.lines)
        elif self.model:
            lines.append(b"X-Llamasup-Model: " + in_header(self.model))
        if self._request.target.startswith(b"/olla/"):
            lines += self._lines_of_olla(took)
        return lines

    def _lines_of_olla(self, took: int) -> list[bytes]:
        """The same, as far as clients of Olla know names for it."""
        known = [b"X-Olla-Request-Id: %b\r\nX-Olla-Response-Time: %d" % (self._request.id, took)]
        if self._signature:
            known.append(self._signature.olla)
        elif self.model:
            known.append(b"X-Olla-Model: " + in_header(self.model))
        return known

    @staticmethod
    def _since(then: float | None, now: float) -> float:
        return 0.0 if then is None else now - then
