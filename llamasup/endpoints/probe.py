"""Asks an instance elsewhere how it is, which models it has, and how many slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import trio

from llamasup.endpoints import answers
from llamasup.endpoints.instance import Instance
from llamasup.http.question import NoAnswer, ask
from llamasup.logs import cut

_PATIENCE: Final = 3.0
LONGEST_WAIT: Final = 10.0
"""Seconds for which a llamasup may wait for something to tell."""

_LONGEST_WHY: Final = 200
_AT_ONCE: Final = 200
_LOADING: Final = b"Loading model"
_TELL_SLOTS: Final = (("/props", answers.slots_in_props), ("/slots", answers.slots_in_list))
"""The pages of llama-servers that tell their slots."""


async def look(instance: Instance, ourselves: str, now: float) -> bool:
    """Ask, and note in the instance what it says. True if its condition has changed.

    `ourselves` is our name among llamasups. Raises nothing; if it is cancelled, nothing is noted.
    """
    began, health = now, instance.health
    try:
        return await _look(instance, ourselves)
    except (OSError, NoAnswer, trio.TooSlowError) as error:
        why = "no answer in time" if isinstance(error, trio.TooSlowError) else _words(error)
        if instance.last_served >= began:
            return False  # it serves requests, and has no thread for questions
        instance.llamasup = ""
        return health.unreachable(why, trio.current_time())


async def _look(instance: Instance, ourselves: str) -> bool:
    health = instance.health
    if instance.llamasup or not instance.was_known:
        status, body = await _ask(instance, _offers_target(instance), ourselves, LONGEST_WAIT)
        if status == 200 and (offers := answers.offers(body)):
            return await _note_llamasup(instance, offers, ourselves)
        instance.llamasup = ""
    status, body = await _ask(instance, "/v1/models", ourselves)
    now = trio.current_time()
    if status == 503:
        return health.loading(now)
    if status in (401, 403):
        return health.refused(f"it refuses our key (GET /v1/models: {status})", now)
    ids = answers.model_ids(body) if status == 200 else None
    if ids is None:
        return health.refused(f"GET /v1/models: {_said(status, body)}", now)
    if not instance.was_known or not health.condition.is_good:
        instance.slots = None
        for target, slots_in in _TELL_SLOTS:
            status, answer = await _ask(instance, target, ourselves)
            now = trio.current_time()
            if status in (401, 403):
                return health.refused(f"it refuses our key (GET {target}: {status})", now)
            if status == 503 and _LOADING in answer:
                return health.loading(now)  # some list their models all the same
            if status == 200 and (slots := slots_in(answer)):
                instance.slots = slots
                break
    instance.ignores_names = instance.slots is not None and len(ids) == 1
    instance.tells(await _all(answers.listed(ids, instance.settings)))
    instance.was_known = True
    return health.answered(trio.current_time())


async def _note_llamasup(instance: Instance, offers: answers.Offers, ourselves: str) -> bool:
    now = trio.current_time()
    instance.llamasup, instance.version = offers.instance, offers.version
    if offers.instance == ourselves:
        instance.offers = {}
        return instance.health.refused("it is this llamasup itself", now)
    instance.tells(await _all(answers.told(offers, instance.settings, ourselves)))
    instance.was_known = True
    if offers.draining:
        return instance.health.unreachable("it is about to end", now)
    return instance.health.answered(now)


async def _all(pairs: Iterator[tuple[str, answers.Offer]]) -> dict[str, answers.Offer]:
    """These models by their names. There may be thousands, so other tasks get turns in between, and
    first of all after the decoding."""
    found: dict[str, answers.Offer] = {}
    while True:
        await trio.lowlevel.checkpoint()
        some = dict(islice(pairs, _AT_ONCE))
        if not some:
            return found
        found |= some


def _offers_target(instance: Instance) -> str:
    if not instance.llamasup or not instance.health.condition.is_good:
        return "/api/offers"
    return f"/api/offers?since={instance.version}&wait={LONGEST_WAIT:g}"


async def _ask(
    instance: Instance, target: str, ourselves: str, wait: float = 0
) -> tuple[int, bytes]:
    with trio.fail_after(_PATIENCE + wait):
        with await instance.connect() as wire:
            return await ask(
                wire, instance.url.path + target, question_headers(instance, ourselves)
            )


def question_headers(instance: Instance, ourselves: str) -> Sequence[tuple[str, str]]:
    """The headers of a question of ours."""
    via = [("Via", f"1.1 {ourselves}")] if ourselves else []
    return [("Host", instance.url.authority), *via, *instance.headers]


def _words(error: Exception) -> str:
    return cut((isinstance(error, OSError) and error.strerror) or str(error), _LONGEST_WHY)


def _said(status: int, body: bytes) -> str:
    if status == 200:
        return "that is no list of models"
    return cut(f"{status} {body[:_LONGEST_WHY].decode(errors='replace')}".strip(), _LONGEST_WHY)
