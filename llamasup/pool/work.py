"""What a request asks of a child."""

from __future__ import annotations

from enum import Enum


class Work(Enum):
    """What the request needs of the child: a slot, an answer beside the slots, or only a look."""

    GENERATE = "generate"
    """It occupies a slot until it is answered."""

    ASK = "ask"
    """It is answered at once, whatever the slots do (`/tokenize`, `/apply-template`)."""

    LOOK = "look"
    """It only looks at a child, if there is one (`GET /props`, `/slots`, `/metrics`): it loads
    none, does not keep it loaded, and delays no other request."""
