"""What a request asks of a child."""

from __future__ import annotations

from enum import Enum


class Work(Enum):
    """Does it need a slot, or is it answered beside them?"""

    GENERATE = "generate"
    """Occupies a slot until it is answered."""

    ASK = "ask"
    """Answered at once, whatever the slots do (`/tokenize`, `/apply-template`)."""

    LOOK = "look"
    """Only looks at a child, if there is one (`GET /props`, `/slots`, `/metrics`): it loads none,
    keeps none awake, and holds up no other request."""
