"""The control app: what llamasup says about itself, as ASGI.

Reached through the front like any child, so that there is one port and one way in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from attrs import define

from llamasup import __version__
from llamasup.children.keeper import Keeper
from llamasup.children.launcher import Launcher
from llamasup.config.schema import Config
from llamasup.memory.host import anonymous_memory
from llamasup.pool.pool import Pool

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


@define
class ControlApp:
    """`/health`, `/v1/models`, `/api/status`."""

    config: Config
    pool: Pool
    launcher: Launcher
    started: float

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or see the server's lifespan through."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        answers: dict[str, Callable[[], object]] = {
            "/health": self.health,
            "/v1/health": self.health,
            "/models": self.models,
            "/v1/models": self.models,
            "/api/status": self.status,
        }
        if scope["path"] == "/api/restart":
            await _reply(send, *self.restart(scope))
        elif answer := answers.get(scope["path"]):
            await _reply(send, 200, answer())
        else:
            await _reply(send, 404, _error("not_found", "there is no such page"))

    def health(self) -> object:
        """It lives, and these models are loaded."""
        loaded = [name for name, keeper in self.pool.keepers.items() if keeper.child]
        return {"status": "ok", "loaded_models": loaded}

    def models(self) -> object:
        """The OpenAI listing."""
        return {"object": "list", "data": [self._model(k) for k in self.pool.keepers.values()]}

    def _model(self, keeper: Keeper) -> object:
        return {
            "id": keeper.model,
            "object": "model",
            "created": int(self.started),
            "owned_by": "llamasup",
            "aliases": list(keeper.plan.settings.aliases),
            "status": {"value": keeper.state.value},
        }

    def restart(self, scope: Scope) -> tuple[int, object]:
        """Start a model's child anew, also one that was given up: `?model=NAME`.

        Not for web pages: no browser of an operator shall be talked into it.
        """
        if any(name == b"origin" for name, _ in scope["headers"]):
            return 403, _error("forbidden", "this is not for web pages")
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("model", [""])[0]
        keeper = self.pool.keepers.get(asked)
        if keeper is None:
            return 404, _error("model_not_found", f'there is no model "{asked}"')
        keeper.restart()
        return 200, {"model": asked, "state": keeper.state.value}

    def status(self) -> object:
        """Everything an operator asks first."""
        engine = self.launcher.known_engine
        return {
            "version": __version__,
            "uptime_seconds": round(time.time() - self.started, 1),
            "engine": engine and {"command": str(engine.program), "version": engine.version},
            "models": [self._detail(keeper) for keeper in self.pool.keepers.values()],
        }

    def _detail(self, keeper: Keeper) -> object:
        child = keeper.child
        return {
            "name": keeper.model,
            "state": keeper.state.value,
            "path": str(keeper.plan.settings.path),
            "loads": keeper.loads,
            "last_failure": keeper.last_failure and str(keeper.last_failure),
            "rungs": [str(rung) for rung in keeper.plan.known_rungs],
            "rung": keeper.rung and str(keeper.rung),
            "child": child
            and {
                "pid": child.pid,
                "address": str(child.address),
                "memory": anonymous_memory(child.pid) if child.pid else 0,
                "in_flight": child.users,
                "slots": child.slots.size,
                "slots_taken": child.slots.taken,
                "waiting": child.slots.waiting,
            },
        }


async def _live(receive: Receive, send: Send) -> None:
    """Nothing to open and nothing to close; but Hypercorn falls if nobody answers."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _error(code: str, message: str) -> object:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


async def _reply(send: Send, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
