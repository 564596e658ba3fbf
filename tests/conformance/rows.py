"""What is asked of the engine directly and through llamasup, as data: a row for each path and
dialect, and for each way in which a request can be wrong."""

from __future__ import annotations

from attrs import evolve, field, frozen

COUNT, EMBEDS, JUDGES = "count", "bert", "judge"
"""The models: one that answers " 0 1 2 3 …", one that embeds texts, one that ranks them."""

CONTEXT = 1024
"""The most tokens of the model that counts."""


@frozen
class Row:
    """One request, and what its answer is known to be."""

    path: str
    body: object = field(factory=dict)
    method: str = "POST"
    model: str = COUNT
    why: str = ""
    """What is special about the body."""

    streams: bool = False
    """Can it be asked for as a stream, too?"""

    status: int = 200
    says: str = ""
    """Words in the answer."""

    ours: bool = False
    """Does llamasup answer by itself? Then only the status and the form of the error are alike."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, self.path, self.why)))


USER = {"role": "user", "content": "count"}
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FIVE = " 0 1 2 3 4"

PROMPTS: dict[str, dict[str, object]] = {
    "/completion": {"prompt": "count", "n_predict": 5},
    "/completions": {"prompt": "count", "n_predict": 5},
    "/v1/completions": {"prompt": "count", "max_tokens": 5},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 5},
    "/chat/completions": {"messages": [USER], "max_tokens": 5},
    "/v1/chat/completions": {"messages": [USER], "max_tokens": 5},
    "/responses": {"input": "count", "max_output_tokens": 5},
    "/v1/responses": {"input": "count", "max_output_tokens": 5},
    "/v1/messages": {"messages": [USER], "max_tokens": 5},
    "/messages": {"messages": [USER], "max_tokens": 5},
}
"""For each path at which a model writes, a body that makes it count to four."""

ANSWERS = [
    *(Row(path, body, streams=True, says=" 4") for path, body in PROMPTS.items()),
    *(
        Row(path, {**PROMPTS[path], **more}, why=why, streams=True)
        for why, path, more in (
            ("with logprobs", "/v1/chat/completions", {"logprobs": True, "top_logprobs": 2}),
            ("with logprobs", "/v1/completions", {"logprobs": 2}),
            ("with probabilities", "/completion", {"n_probs": 2}),
            ("two prompts", "/v1/completions", {"prompt": ["count", "on"]}),
            ("until a word", "/v1/chat/completions", {"stop": [" 3"]}),
            ("until a word", "/v1/messages", {"stop_sequences": [" 3"]}),
            (
                "by a schema",
                "/v1/chat/completions",
                {"response_format": {"type": "json_object"}, "temperature": 0},
            ),
            ("with usage", "/v1/chat/completions", {"stream_options": {"include_usage": True}}),
            ("with tools", "/v1/chat/completions", {"tools": [TOOL]}),
            (
                "with a tool",
                "/v1/messages",
                {"tools": [{"name": "look", "input_schema": {"type": "object"}}]},
            ),
            ("with system words", "/v1/messages", {"system": "be brief"}),
            ("with instructions", "/v1/responses", {"instructions": "be brief"}),
            ("of parts", "/v1/responses", {"input": [{"role": "user", "content": "count"}]}),
            ("by a seed", "/v1/completions", {"seed": 7, "temperature": 0.5}),
            ("as it was told", "/completion", {"return_tokens": True, "return_progress": True}),
        )
    ),
    *(
        Row(
            path,
            {"messages": [USER, {"role": "assistant", "content": FIVE}], "max_tokens": 2},
            why="goes on",
            streams=True,
            says=" 6",
        )
        for path in ("/v1/chat/completions", "/v1/messages")
    ),
]

QUESTIONS = [
    Row("/v1/messages/count_tokens", {"messages": [USER]}, says="input_tokens"),
    Row("/messages/count_tokens", {"messages": [USER]}, says="input_tokens"),
    Row("/v1/chat/completions/input_tokens", {"messages": [USER]}, says="input_tokens"),
    Row("/chat/completions/input_tokens", {"messages": [USER]}, says="input_tokens"),
    Row("/v1/responses/input_tokens", {"input": "count"}, says="input_tokens"),
    Row("/responses/input_tokens", {"input": "count"}, says="input_tokens"),
    Row("/tokenize", {"content": FIVE}, says="tokens"),
    Row("/tokenize", {"content": FIVE, "with_pieces": True}, why="with pieces", says=" 4"),
    Row("/detokenize", {"tokens": [260, 261]}, says="content"),
    Row("/apply-template", {"messages": [USER]}, says="count"),
    Row("/lora-adapters", []),
    Row("/props", {}, why="to be changed", status=501),
    *(
        Row(f"/slots/0?action={action}", {"filename": "slot"}, status=501)
        for action in ("save", "restore", "erase", "dance")
    ),
]

BESIDES = [
    Row("/v1/stream?conv_id=none", None, "GET", why="of no conversation", status=404),
    Row("/v1/stream?conv_id=none", None, "DELETE", why="of no conversation", status=204),
    Row("/v1/streams/lookup", {"conversation_ids": ["none"]}),
    *(
        Row(path, {}, why="of no answer", status=400)
        for path in ("/v1/chat/completions/control", "/chat/completions/control")
    ),
]
"""What belongs to an answer that is given to somebody else."""

LOOKS = [Row(path, None, "GET") for path in ("/props", "/slots", "/lora-adapters", "/metrics")]

TEXTS: dict[str, dict[str, object]] = {
    "/embedding": {"content": "hello"},
    "/embeddings": {"input": "hello"},
    "/v1/embeddings": {"input": "hello"},
}
EMBEDDINGS = [
    *(Row(path, body, model=EMBEDS, says="embedding") for path, body in TEXTS.items()),
    *(
        Row("/v1/embeddings", body, model=EMBEDS, why=why)
        for why, body in (
            ("of two", {"input": ["hello", "you"]}),
            ("of tokens", {"input": [1, 2, 3]}),
            ("as base64", {"input": "hello", "encoding_format": "base64"}),
        )
    ),
]
QUESTION = {"query": "hello", "documents": ["you", "me", "hello"]}
RANKINGS = [
    *(
        Row(path, QUESTION, model=JUDGES, says="relevance_score")
        for path in ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking")
    ),
    Row("/v1/rerank", {**QUESTION, "top_n": 1}, model=JUDGES, why="of the best"),
]

LONG = "count " * (2 * CONTEXT)
UNKNOWN = (
    "/predict",
    *(f"{version}/audio/{what}" for version in ("", "/v1") for what in ("speech", "translations")),
    *(
        f"{version}/images/{what}"
        for version in ("", "/v1")
        for what in ("generations", "edits", "variations")
    ),
)
"""Paths that other servers know, and llama-server does not, or not any more."""

ERRORS = [
    *(
        Row(path, body, why="without what it must have", streams=True, status=400)
        for path, body in (
            ("/v1/chat/completions", {}),
            ("/v1/completions", {}),
            ("/v1/responses", {}),
            ("/completion", {}),
            ("/infill", {}),
        )
    ),
    *(
        Row(path, evolved, why="too long", streams=True, status=400)
        for path, evolved in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
            ("/v1/completions", {"prompt": LONG}),
            ("/v1/responses", {"input": LONG}),
            ("/v1/messages", {"messages": [{"role": "user", "content": LONG}], "max_tokens": 5}),
            ("/completion", {"prompt": LONG}),
        )
    ),
    *(
        Row(path, {**PROMPTS[path], **wrong}, why=why, streams=True, status=400)
        for why, path, wrong in (
            ("messages that are none", "/v1/chat/completions", {"messages": "count"}),
            ("more answers than slots", "/v1/chat/completions", {"n": 2}),
            ("a bad grammar", "/v1/chat/completions", {"grammar": "root ::= ("}),
            ("a grammar and a schema", "/completion", {"json_schema": SCHEMA, "grammar": "x"}),
        )
    ),
    Row("/v1/chat/completions/input_tokens", {}, why="without messages", status=400),
    Row("/v1/messages", {}, why="without messages", streams=True, status=500),
    Row("/v1/messages/count_tokens", {}, why="without messages", status=500),
    Row(
        "/v1/chat/completions",
        {"messages": [{"content": "x"}]},
        why="a message without a role",
        streams=True,
        status=500,
    ),
    Row("/detokenize", {"tokens": "x"}, why="of no tokens", status=400),
    Row("/apply-template", {}, why="without messages", status=400),
    Row("/v1/embeddings", {}, model=EMBEDS, why="of nothing", status=400),
    Row("/v1/embeddings", {"input": "hello " * 600}, model=EMBEDS, why="too long", status=500),
    Row("/v1/rerank", {"query": "hello"}, model=JUDGES, why="of nothing", status=400),
    *(
        Row(path, {}, why="without sound", status=501)
        for path in ("/v1/audio/transcriptions", "/audio/transcriptions")
    ),
    *(Row(path, {"prompt": "x"}, why="that is none", status=404) for path in UNKNOWN),
    *(
        Row(path, b"{", why="that is no JSON", status=400, ours=True)
        for path in ("/v1/chat/completions", "/v1/messages", "/completion", "/tokenize")
    ),
]

ROWS = [*ANSWERS, *QUESTIONS, *BESIDES, *LOOKS, *EMBEDDINGS, *RANKINGS, *ERRORS]


def streamed(row: Row) -> Row:
    """The same, asked for as a stream."""
    assert isinstance(row.body, dict)
    return evolve(row, body={**row.body, "stream": True}, why=f"{row.why} streamed".strip())
