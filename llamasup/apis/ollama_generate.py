"""Ollama's `/api/generate`. Pure.

A prompt goes through the model's chat template, so it is put to engines as a chat of one message. A
raw prompt is put as llama.cpp's own completion, and one with a suffix as its infill.
"""

from __future__ import annotations

import msgspec

from llamasup.apis.ollama import Ollama
from llamasup.apis.ollama_replies import Teller, Telling
from llamasup.apis.ollama_requests import (
    Members,
    Request,
    chat_request,
    content,
    sampling,
    schema,
    understood,
)
from llamasup.apis.openai_chat import Chat
from llamasup.apis.said import ChatListener, CompletionListener, Said
from llamasup.apis.translation import Moment, Residence, Translation
from llamasup.errors import ClientError


class _Generate(Request):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[msgspec.Raw] | None = None


class OllamaGenerate(Ollama):
    """`/api/generate`."""

    about = "Ollama's prompts"
    stream_paths = (b"/api/generate",)

    def translated(self, path: bytes, body: bytes) -> Translation | Residence:
        """See `Ollama.translated`."""
        asked = understood(body, _Generate)
        _refuse_what_is_not_obeyed(asked)
        if not (asked.prompt or asked.images or asked.suffix):
            return Residence(not asked.unloads, lambda moment: _resident(moment, asked))
        if asked.suffix:
            prompt = {"input_prefix": asked.prompt or "", "input_suffix": asked.suffix}
            return _completion(b"/infill", asked, prompt)
        if asked.raw:
            return _completion(b"/completion", asked, {"prompt": asked.prompt})
        request = chat_request(asked, _messages(asked))
        return Translation(
            Chat.stream_paths[-1],
            msgspec.json.encode(request),
            asked.streams,
            lambda moment: _GenerateReply(moment, ChatListener()),
            asked.unloads,
        )


def _refuse_what_is_not_obeyed(asked: _Generate) -> None:
    if asked.template:
        raise ClientError(
            "`template` is not obeyed here: the model's own chat template is used; to use none,"
            ' say "raw": true, or write --chat-template-file into the model\'s `extra_args`'
        )
    if asked.context:
        raise ClientError(
            "`context` is not obeyed here, because it holds another server's tokens: send the"
            " conversation's messages to /api/chat"
        )
    if (asked.raw or asked.suffix) and asked.images:
        raise ClientError("images need a chat template: leave out `raw` and `suffix`")
    if asked.raw and asked.system:
        raise ClientError("a raw prompt has no `system`: write it into the prompt")


def _completion(target: bytes, asked: _Generate, prompt: Members) -> Translation:
    request: Members = {**prompt, "stream": asked.streams}
    if asked.model:
        request["model"] = asked.model
    request |= sampling(asked.options, limit="n_predict")
    if (wanted := schema(asked.format)) is not None:
        request["json_schema"] = wanted
    if asked.logprobs:
        request["n_probs"] = asked.top_logprobs or 1
    return Translation(
        target,
        msgspec.json.encode(request),
        asked.streams,
        lambda moment: _GenerateReply(moment, CompletionListener()),
        asked.unloads,
    )


def _messages(asked: _Generate) -> list[Members]:
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    return [*system, {"role": "user", "content": content(asked.prompt or "", asked.images)}]


def _resident(moment: Moment, asked: _Generate) -> bytes:
    return Teller(moment).resident({"response": ""}, "unload" if asked.unloads else "load")


class _GenerateReply(Telling):
    def said(self, said: Said) -> Members:
        """See `Telling.said`."""
        line: Members = {"response": said.text}
        if said.thinking:
            line["thinking"] = said.thinking
        return line
