"""What is valid, and what becomes of it when a few things are done to it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake\r\n--b--\r\n'
_CHUNKED = b"Transfer-Encoding: chunked"
_LAST_CHUNK = b"0\r\n\r\n"


def _post(
    *headers: bytes, body: bytes, target: bytes = b"/tokenize", version: bytes = b"1.1"
) -> bytes:
    line = b"POST %b HTTP/%b" % (target, version)
    return b"\r\n".join([line, b"Host: a", *headers, b"", body])


def _json(body: bytes, target: bytes = b"/v1/chat/completions", *headers: bytes) -> bytes:
    return _post(b"Content-Length: %d" % len(body), *headers, body=body, target=target)


_GET = b"GET /props HTTP/1.1\r\nHost: a\r\n\r\n"

REQUESTS = [
    _GET,
    b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/models/fake HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n",
    _post(b"Content-Length: 15", b"X-Request-ID: me", body=b'{"content":"x"}'),
    _post(_CHUNKED, body=b'f\r\n{"content":"x"}\r\n' + _LAST_CHUNK),
    _post(
        _CHUNKED,
        b"Connection: close, X",
        body=b'7\r\n{"model\r\n2\r\n":\r\n7\r\n"fake"}\r\n0\r\nT: 1\r\n\r\n',
    ),
    _post(b"Expect: 100-continue", b"Content-Length: 2", body=b"{}"),
    _post(b"Content-Length: 2", body=b"{}", version=b"1.0"),
    _post(b"Content-Length: 2", body=b"{}") + _GET + _post(_CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"),
    _json(b'{"model":"fake","stream":true,"max_tokens":2,"messages":[{"role":"user"}]}'),
    _json(b'\xef\xbb\xbf{"model": "fak\\u0065", "stream": false}', b"/v1/completions"),
    _json(b'{"model":"fake"}', b"/v1/messages", b"Priority: u=1, i", b"X-Api-Key: k"),
    _json(b'{"model":"fake","input":"x"}', b"/v1/embeddings", b"Authorization: Bearer k"),
    _post(
        b"Content-Length: %d" % len(FORM),
        b"Content-Type: multipart/form-data; boundary=b",
        body=FORM,
        target=b"/v1/audio/transcriptions",
    ),
]

_EVENT = b'data: {"choices":[{"delta":{"content":" 0"}}]}\n\n'
_OK = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\n"
_STREAM = _OK + b"Content-Type: text/event-stream\r\n" + _CHUNKED + b"\r\n\r\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _error(status: bytes, words: bytes) -> bytes:
    body = b'{"error":{"code":500,"message":"%b","type":"server_error"}}' % words
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


ANSWERS = [
    _OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    _OK + b"Content-Type: application/json\r\nConnection: close\r\n\r\n{}",
    _OK + _CHUNKED + b"\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    _STREAM + _chunk(_EVENT) * 3 + _chunk(b"data: [DONE]\n\n") + _LAST_CHUNK,
    _STREAM + _chunk(b":\n\n") + _chunk(_EVENT + _EVENT) + _LAST_CHUNK,
    _STREAM + _chunk(b'data: {"error":{"code":500,"message":"Compute error."}}\n\n') + _LAST_CHUNK,
    _STREAM + _chunk(_EVENT)[:-1],
    _error(b"400 Bad Request", b"failed to parse grammar"),
    _error(b"500 Internal Server Error", b"Context size has been exceeded."),
    _error(b"503 Service Unavailable", b"Loading model"),
]

TOKENS = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\xff"),
    *(b"\x1b[2J", b'"', b"{", b"}", b"\\", b"data:", b"\n\n", b"error", b"event: error\n"),
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: " + b"9" * 5000 + b"\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: content-length\r\n",
    b"Content-Type: text/event-stream\r\n",
    b"Expect: 100-continue\r\n",
    b"Origin: http://a\r\n",
    b"Host: b\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 999 X\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"GET /props?smuggled HTTP/1.1\r\n",
    b"http://",
    b"[" * 2000,
]


def mutants(seeds: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """Valid messages with a few things done to them, for ever."""
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            stop = at + chance.choice((1, 2, 8, 40))
            match chance.randrange(5):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    data[at:at] = bytes([chance.randrange(256)])
                case 2:
                    del data[at:stop]
                case 3:
                    data[at:at] = data[at:stop]
                case 4:
                    data[at:at] = chance.choice(TOKENS)
        yield bytes(data)
