"""What `/api/status` says about one model: all that an operator wants to know first."""

from __future__ import annotations

from llamasup.children.keeper import Keeper
from llamasup.memory.host import anonymous_memory


def detail(keeper: Keeper, waiting: int) -> object:
    """One model with its child; `waiting` requests wait for it."""
    child = keeper.child
    return {
        "name": keeper.model,
        "state": keeper.state.shown,
        "path": keeper.plan.path and str(keeper.plan.path),
        "program": keeper.plan.program or None,
        "loads": keeper.loads,
        "last_failure": keeper.last_failure and str(keeper.last_failure),
        "rungs": [str(rung) for rung in keeper.plan.known_rungs],
        "rung": keeper.rung and str(keeper.rung),
        "waiting": waiting,
        "child": child
        and {
            "pid": child.pid,
            "address": str(child.address),
            "memory": anonymous_memory(child.pid) if child.pid else 0,
            "in_flight": child.users,
            "slots": child.slots.size,
            "slots_taken": child.slots.taken,
        },
    }
