"""Every path that llama-server answers goes where it should; nothing else goes anywhere."""

from __future__ import annotations

import json

import pytest

from llamasup.errors import ClientError, MethodNotAllowed, RouteNotFound
from llamasup.front.routes import Router, ToControl, ToEngine, ToModel, to_own
from llamasup.front.wishes import Wishes
from llamasup.http.requests import Request
from llamasup.pool.work import Work

GENERATE, ASK, LOOK, CONTROL = Work.GENERATE, Work.ASK, Work.LOOK, "control"

ROUTES = [
    ("POST", "/completion", GENERATE),
    ("POST", "/completions", GENERATE),
    ("POST", "/v1/completions", GENERATE),
    ("POST", "/chat/completions", GENERATE),
    ("POST", "/v1/chat/completions", GENERATE),
    ("POST", "/responses", GENERATE),
    ("POST", "/v1/responses", GENERATE),
    ("POST", "/v1/messages", GENERATE),
    ("POST", "/infill", GENERATE),
    ("POST", "/embedding", GENERATE),
    ("POST", "/embeddings", GENERATE),
    ("POST", "/v1/embeddings", GENERATE),
    ("POST", "/rerank", GENERATE),
    ("POST", "/v1/rerank", GENERATE),
    ("POST", "/reranking", GENERATE),
    ("POST", "/v1/reranking", GENERATE),
    ("POST", "/audio/transcriptions", GENERATE),
    ("POST", "/v1/audio/transcriptions", GENERATE),
    ("POST", "/v1/audio/translations", GENERATE),
    ("POST", "/v1/audio/speech", GENERATE),
    ("POST", "/v1/audio/voices/clone", GENERATE),
    ("GET", "/v1/audio/voices", LOOK),
    ("POST", "/v1/images/generations", GENERATE),
    ("POST", "/v1/images/edits", GENERATE),
    ("POST", "/v1/images/anything", GENERATE),
    ("POST", "/predict", GENERATE),
    ("POST", "/chat/completions/input_tokens", ASK),
    ("POST", "/v1/chat/completions/input_tokens", ASK),
    ("POST", "/responses/input_tokens", ASK),
    ("POST", "/v1/responses/input_tokens", ASK),
    ("POST", "/v1/messages/count_tokens", ASK),
    ("POST", "/tokenize", ASK),
    ("POST", "/detokenize", ASK),
    ("POST", "/apply-template", ASK),
    ("POST", "/lora-adapters", ASK),
    ("POST", "/props", ASK),
    ("POST", "/slots/0?action=save", ASK),
    ("POST", "/slots/12?action=erase", ASK),
    *(
        (method, path, LOOK)
        for method in ("GET", "HEAD")
        for path in ("/props", "/metrics", "/slots", "/lora-adapters")
    ),
    *(
        (method, path, CONTROL)
        for method in ("GET", "HEAD")
        for path in (
            *("/health", "/v1/health", "/models", "/v1/models", "/modelFits", "/v1/modelFits"),
            *("/api/status", "/config", "/livez", "/readyz", "/openapi.json"),
        )
    ),
    ("POST", "/models/load", CONTROL),
    ("POST", "/models/unload", CONTROL),
    ("POST", "/config", CONTROL),
    ("POST", "/api/restart?model=a", CONTROL),
]


def asking(
    method: str, target: str, body: object = b"", content_type: bytes = b"application/json"
) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [(b"content-type", content_type)]
    return Request(method.encode(), target.encode(), headers, True, False, b"id", content)


def model_of(request: Request) -> str | None:
    goal = Router().route(request)
    assert isinstance(goal, ToModel)
    return goal.model


# --- paths ---


@pytest.mark.parametrize(("method", "target", "goal"), ROUTES)
def test_every_route_of_llama_server_is_answered(
    method: str, target: str, goal: Work | str
) -> None:
    reached = Router().route(asking(method, target))
    if goal == CONTROL:
        assert reached == ToControl(target.encode())
    else:
        assert reached == ToModel(None, target.encode(), goal)


@pytest.mark.parametrize(
    "path",
    [
        "///",
        "/nope",
        "/api/nope",
        "/v1/tokenize",
        "/v1/chat/completions//",
        "//v1/chat/completions",
        "/V1/chat/completions",
        "/v1/../tokenize",
        "/v1/chat%2fcompletions",
        "/%74okenize",
        "/slots/x",
        "/slots/-1",
        "/slots/0//",
        "/slots/1234567",
        "/tokenize#fragment",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_and_clever_spellings_are_not_found(method: str, path: str) -> None:
    with pytest.raises(RouteNotFound) as refusal:
        Router().route(asking(method, path))
    assert refusal.value.status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/tokenize", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/props", "POST, GET, HEAD"),
        ("get", "/slots", "GET, HEAD"),
        ("GET", "/slots/0", "POST"),
        ("OPTIONS", "/tokenize", "POST"),
        ("TRACE", "/health", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowed) as refusal:
        Router().route(asking(method, path))
    assert refusal.value.status == 405
    assert refusal.value.allowed == allowed


@pytest.mark.parametrize(("method", "target", "goal"), ROUTES)
def test_a_slash_at_the_end_makes_no_difference(method: str, target: str, goal: Work | str) -> None:
    path, mark, query = target.partition("?")
    with_slash = asking(method, f"{path}/{mark}{query}")
    assert Router().route(with_slash) == Router().route(asking(method, target))


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/messages", b"/v1/messages"),
        ("/messages/count_tokens?beta=true", b"/v1/messages/count_tokens?beta=true"),
        ("/audio/speech", b"/v1/audio/speech"),
        ("/images/generations/", b"/v1/images/generations"),
        ("/audio/new", b"/v1/audio/new"),
        ("/embeddings", b"/embeddings"),
        ("/completions", b"/completions"),
        ("/chat/completions", b"/chat/completions"),
    ],
)
def test_without_v1_a_path_is_sent_as_the_engine_knows_it(target: str, sent: bytes) -> None:
    goal = Router().route(asking("POST", target))
    assert isinstance(goal, ToModel)
    assert goal.target == sent


def test_only_the_stream_of_changes_lasts() -> None:
    assert Router().route(asking("GET", "/models/sse")) == ToControl(b"/models/sse", lasts=True)


# --- the pages of engines ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_all_that_an_engine_has_is_reached_through_its_model(method: str) -> None:
    goal = Router(["/x"]).route(asking(method, "/x/upstream/owner/n%20a/props/?q=1"))
    assert goal == ToEngine(b"owner/n%20a/props/", b"?q=1")


def test_what_an_engine_alone_reads_is_not_read_here() -> None:
    assert Router().route(asking("POST", "/upstream/a/x", b"not JSON")) == ToEngine(b"a/x", b"")
    make = Router().reader(asking("POST", "/upstream/a/x", b""))
    assert make is not None
    reader = make()
    reader.feed(b"not JSON")
    assert reader.end() == Wishes()


@pytest.mark.parametrize(
    ("method", "path", "query", "work"),
    [
        ("GET", b"/", b"", ASK),
        ("GET", b"/_app/start.js", b"", ASK),
        ("GET", b"/props", b"", LOOK),
        ("GET", b"/props", b"?autoload=true", ASK),
        ("GET", b"/v1/models", b"", LOOK),
        ("HEAD", b"/health", b"", LOOK),
        ("GET", b"/slots", b"", LOOK),
        ("POST", b"/v1/chat/completions", b"", GENERATE),
        ("POST", b"/tokenize", b"", ASK),
        ("POST", b"/something/new", b"", GENERATE),
        ("POST", b"/models/load", b"", GENERATE),
        ("DELETE", b"/v1/stream", b"?id=7", LOOK),
        ("POST", b"/v1/streams/lookup", b"", LOOK),
        ("DELETE", b"/new", b"", ASK),
    ],
)
def test_what_an_engines_own_path_means_is_known_from_the_table(
    method: str, path: bytes, query: bytes, work: Work
) -> None:
    assert to_own(method.encode(), "a", path, query) == ToModel("a", path + query, work, here=True)


def test_the_query_is_passed_on_as_it_came() -> None:
    assert Router().route(asking("GET", "/health?a=%20&b")) == ToControl(b"/health?a=%20&b")


# --- prefixes ---


@pytest.mark.parametrize(
    ("target", "stripped"),
    [
        ("/olla/llamacpp/tokenize", b"/tokenize"),
        ("/olla/props?x=1", b"/props?x=1"),
        ("/tokenize", b"/tokenize"),
    ],
)
def test_a_prefix_is_stripped_the_longest_first(target: str, stripped: bytes) -> None:
    router = Router(["/olla", "/olla/llamacpp/"])
    goal = router.route(asking("POST", target))
    assert isinstance(goal, ToModel)
    assert goal.target == stripped


@pytest.mark.parametrize("target", ["/ollama/tokenize", "/olla", "/olla/olla/tokenize"])
def test_what_only_resembles_a_prefix_is_none(target: str) -> None:
    with pytest.raises(RouteNotFound):
        Router(["/olla"]).route(asking("POST", target))


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("name", ["qwen3", "owner/name", "owner/name:Q4_0", "a%20b", "models"])
def test_each_model_has_a_page_whatever_it_is_called(prefix: str, name: str) -> None:
    target = f"{prefix}/models/{name}"
    assert Router().route(asking("GET", target)) == ToControl(target.encode())
    with pytest.raises(MethodNotAllowed) as refusal:
        Router().route(asking("DELETE", target))
    assert refusal.value.allowed == "GET, HEAD"


# --- the model's name ---


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "a"}, "a"),
        ({"stream": True, "messages": [{"model": "inner"}], "model": "outer"}, "outer"),
        ({"messages": [{"model": "inner"}]}, None),
        ({"model": None}, None),
        ({"model": "modèle"}, "modèle"),
        ([{"model": "in a list"}], None),
        ({}, None),
    ],
)
def test_the_body_names_the_model(body: object, model: str | None) -> None:
    assert model_of(asking("POST", "/v1/chat/completions", body)) == model


def test_the_query_names_it_where_the_body_does_not() -> None:
    assert model_of(asking("GET", "/props?model=a%20b&x=1")) == "a b"
    assert model_of(asking("POST", "/tokenize?model=query", {"content": "x"})) == "query"
    assert model_of(asking("POST", "/tokenize?model=query", {"model": "body"})) == "body"
    assert model_of(asking("GET", "/props?supermodel=a")) is None


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"not json",
        b'{"model": "a"} trailing',
        b'{"model": "a',
        b'{"model": "\xff"}',
        b'{"model": 7}',
        b'{"model": ["a"]}',
        b'"a string"',
        b"7",
        b"null",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"messages":' + b"[" * 100_000,
    ],
    ids=range(14),
)
def test_a_body_that_no_engine_could_read_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(ClientError, match="body") as refusal:
        Router().route(asking("POST", "/v1/chat/completions", body))
    assert refusal.value.status == 400


# --- requests that only look ---


@pytest.mark.parametrize(
    ("query", "work"),
    [
        ("", LOOK),
        ("?model=a", LOOK),
        ("?autoload=true", ASK),
        ("?model=a&autoload=1&x", ASK),
        ("?autoload=false", LOOK),
        ("?autoload=truest", LOOK),
        ("?noautoload=true", LOOK),
    ],
)
def test_a_request_that_only_looks_loads_a_model_only_by_saying_so(query: str, work: Work) -> None:
    for path in ("/props", "/metrics", "/slots", "/lora-adapters"):
        goal = Router().route(asking("GET", path + query))
        assert isinstance(goal, ToModel)
        assert goal.work is work


# --- streams ---


@pytest.mark.parametrize(
    ("path", "body", "streams"),
    [
        ("/v1/chat/completions", {"stream": True}, True),
        ("/v1/messages", {"model": "a", "stream": True, "messages": []}, True),
        ("/infill", {"stream": True}, True),
        ("/v1/chat/completions", {"stream": False}, False),
        ("/v1/chat/completions", {"messages": [{"stream": True}]}, False),
        ("/v1/chat/completions", {}, False),
        ("/v1/chat/completions", b"", False),
        *(("/v1/chat/completions", {"stream": odd}, False) for odd in (None, 1, "true", [True])),
        ("/v1/embeddings", {"stream": True}, False),
        ("/v1/messages/count_tokens", {"stream": True}, False),
    ],
)
def test_a_stream_is_what_the_body_asks_for_where_there_are_streams(
    path: str, body: object, streams: bool
) -> None:
    goal = Router().route(asking("POST", path, body))
    assert isinstance(goal, ToModel)
    assert goal.streams is streams


def test_what_is_read_without_a_body_is_no_stream() -> None:
    assert Router().route(asking("HEAD", "/slots")) == ToModel(None, b"/slots", LOOK, streams=False)


# --- multipart ---


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_form_field_names_the_model(quote: bytes) -> None:
    form = b'--edge\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--edge--\r\n'
    content_type = b"Multipart/Form-Data; charset=utf-8; boundary=%bedge%b" % (quote, quote)
    assert model_of(asking("POST", "/v1/audio/transcriptions", form, content_type)) == "whisper"


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(ClientError, match="boundary"):
        model_of(asking("POST", "/v1/audio/transcriptions", b"--edge--", b"multipart/form-data"))
