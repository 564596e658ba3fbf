"""What an error's head says about trying again. Pure.

Clients that were refused together must not come back together. So each is told another time, up to
half as long again, but 10 s at most: by its request's id, which is random unless the client chose
it. Most clients read `Retry-After` in whole seconds; the SDKs of OpenAI and Anthropic read
milliseconds, too, and obey `x-should-retry`.
"""

from __future__ import annotations

import math
from typing import Final
from zlib import crc32

from llamasup.http.request_heads import Headers

_WIDEST: Final = 10.0


def advice(retry_after: float | None, request_id: bytes) -> Headers:
    """Headers that say when to try again, `retry_after` seconds from now or somewhat later; None:
    that it is no use."""
    if retry_after is None:
        return [(b"x-should-retry", b"false")]
    later = retry_after + min(retry_after / 2, _WIDEST) * crc32(request_id) / 2**32
    return [
        (b"Retry-After", b"%d" % max(1, math.ceil(later))),
        (b"Retry-After-Ms", b"%d" % math.ceil(later * 1000)),
    ]
