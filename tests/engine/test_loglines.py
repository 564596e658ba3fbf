"""Bytes of every known dialect of llama-server become the same few events, however they are cut."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamasup.engine.loglines import (
    Event,
    FellAsleep,
    Line,
    Listening,
    LoadProgress,
    LogReader,
    ModelLoaded,
    PromptProgress,
    SlotsConfigured,
)
from tests.harness import steps

LOGS = Path(__file__).parent / "logs"
EVERY_LOG = sorted(LOGS.rglob("*.txt"))


def read(data: bytes) -> list[Event]:
    reader = LogReader()
    return reader.feed(data) + reader.end()


def meanings(log: str) -> list[Event]:
    events = read((LOGS / f"{log}.txt").read_bytes())
    return [event for event in events if not isinstance(event, Line)]


def lines(data: bytes) -> list[Line]:
    return [event for event in read(data) if isinstance(event, Line)]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("ready_text", ["http://127.0.0.1:12061", (2, 512)]),
        ("ready_no_prefix_unix_socket", ["unix:///run/llamasup/x.sock", (4, 1024)]),
        ("ready_no_timestamps", ["http://127.0.0.1:12065", (4, 512)]),
        ("ready_colours", ["http://127.0.0.1:12061", (4, 1024)]),
        ("ready_jsonl", ["http://127.0.0.1:12061", (4, 1024)]),
        ("ready_verbose", ["http://127.0.0.1:12061", (4, 1024)]),
        ("pypi_ready", ["unix:///run/llamasup/py.sock", (1, 1024)]),
    ],
)
def test_a_start_is_slots_then_model_then_address_in_every_dialect(
    log: str, expected: tuple[str, tuple[int, int]]
) -> None:
    address, slots = expected
    assert meanings(log) == [SlotsConfigured(*slots), ModelLoaded(), Listening(address)]


@pytest.mark.parametrize("log", ["ready_2024_json", "ready_2024_text"])
def test_older_engines_bind_before_they_load(log: str) -> None:
    assert meanings(f"not_seen_here/{log}") == [
        Listening("http://127.0.0.1:8080"),
        SlotsConfigured(1, None),
        ModelLoaded(),
    ]


def test_the_engine_of_2025_says_twice_that_it_listens_and_shows_its_prefill() -> None:
    assert meanings("not_seen_here/ready_2025_text") == [
        Listening("http://127.0.0.1:8080"),
        SlotsConfigured(2, None),
        ModelLoaded(),
        Listening("http://127.0.0.1:8080"),
        PromptProgress(slot=0, tokens=2048, fraction=0.5),
    ]


def test_the_engine_of_2023_says_in_text_and_in_json_that_it_listens() -> None:
    assert meanings("not_seen_here/ready_2023") == [Listening("http://127.0.0.1:8080")] * 2


def test_a_child_reports_how_far_it_has_loaded_and_then_that_it_is_ready() -> None:
    *loading, ready = meanings("child_mode_load")
    fractions = [event.fraction for event in loading if isinstance(event, LoadProgress)]
    assert len(fractions) == len(loading)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)
    assert ready == ModelLoaded()


def test_a_child_that_slept_reports_that_it_loads_again() -> None:
    assert meanings("child_mode_sleep_and_wake") == [
        *(LoadProgress(0.0), LoadProgress(1.0), ModelLoaded(), FellAsleep()),
        *(LoadProgress(0.0), LoadProgress(1.0), ModelLoaded()),
    ]


def test_load_progress_counts_all_stages() -> None:
    report = (
        b'cmd_child_to_router:state:{"state":"loading",'
        b'"payload":{"stages":["text_model","mmproj"],"current":"mmproj","value":0.5}}\n'
    )
    assert read(report)[1:] == [LoadProgress(0.75)]


@pytest.mark.parametrize(
    "payload",
    [b"null", b"{}", b'{"stages":[],"current":"a","value":1}', b'{"stages":["a"],"current":"a"}'],
)
def test_loading_without_a_number_is_progress_all_the_same(payload: bytes) -> None:
    report = b'cmd_child_to_router:state:{"state":"loading","payload":' + payload + b"}"
    assert read(report)[1:] == [LoadProgress(None)]


def test_a_long_prefill_shows_its_progress() -> None:
    progress = [event for event in meanings("long_prefill") if isinstance(event, PromptProgress)]
    assert progress[0] == PromptProgress(slot=0, tokens=320, fraction=0.12)
    assert len(progress) > 30
    assert [event.tokens for event in progress] == sorted(event.tokens for event in progress)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0.00.032.395 I srv  hello", Line("0.00.032.395 I srv  hello", "info")),
        (b"0.00.032.395 W srv  hello\r", Line("0.00.032.395 W srv  hello", "warning")),
        (b"E hello", Line("E hello", "error")),
        (b"D hello", Line("D hello", "debug")),
        (b"WARN [  main] hello", Line("WARN [  main] hello", "warning")),
        (b"srv  hello", Line("srv  hello", None)),
        (b"\x1b[34m0.00.000.769\x1b[0m \x1b[35mW x\x1b[0m", Line("0.00.000.769 W x", "warning")),
        (b'{"type":"log","level":"warn","msg":"srv  x\\n"}', Line("W srv  x", "warning")),
        (b'{"level":"ERROR","function":"main","msg":"no"}', Line("E main: no", "error")),
        (b'{"type":"fit_memory_breakdown"}', Line('{"type":"fit_memory_breakdown"}', None)),
        (b"caf\xe9", Line("caf\ufffd", None)),
    ],
)  # fmt: skip
def test_a_line_keeps_its_prefix_and_knows_its_level(data: bytes, expected: Line) -> None:
    assert lines(data) == [expected]


def test_empty_lines_are_no_events() -> None:
    assert read(b"\n\n \r\n\x1b[0m\n") == []


def test_a_json_message_of_several_lines_is_several_lines() -> None:
    assert lines(b'{"level":"info","msg":"one\\n\\ntwo\\n"}') == [
        Line("I one", "info"),
        Line("I two", "info"),
    ]


def test_the_last_line_needs_no_end() -> None:
    reader = LogReader()
    assert reader.feed(b"I srv  llama_server: model loa") == []
    assert reader.feed(b"ded") == []
    assert reader.end() == [Line("I srv  llama_server: model loaded", "info"), ModelLoaded()]
    assert reader.end() == []


def test_a_line_of_no_end_is_cut_and_the_next_one_is_whole() -> None:
    reader = LogReader()
    for _ in range(100):
        assert reader.feed(b"x" * 10_000) == []
    assert reader.feed(b"\nnext\n") == [Line("x" * LogReader.longest, None), Line("next", None)]


@pytest.mark.parametrize(
    "data",
    [
        b"initializing, n_slots = " + b"9" * 8000 + b", n_ctx_slot = 1",
        b"[" * 16_000,
        b'{"msg":' + b"[" * 8000 + b"]" * 8000 + b"}",
        b'{"level":["error"],"msg":"\\ud800"}',
        b'cmd_child_to_router:state:{"state":"loading","payload":{"value":1e999}}',
        b"cmd_child_to_router:state:{" + b"[" * 9000,
    ],
)
def test_absurd_values_are_lines_without_meaning(data: bytes) -> None:
    assert len(lines(data)) == 1
    assert len(read(data)) == 1


@pytest.mark.parametrize(
    "quote",
    [
        b"D srv  log: server is listening on http://127.0.0.1:1",
        b"I slot print: id  0 | task 0 | say: listening on http://127.0.0.1:1",
        b"I slot print: id  0 | task 0 | say: CUDA error: out of memory",
        b'{"prompt":"main: model loaded"}',
    ],
)
def test_chatter_that_quotes_us_is_not_believed(quote: bytes) -> None:
    assert len(read(quote)) == 1


MILESTONES = [
    b"initializing slots, n_slots = 0",
    b"main: model loaded",
    b"main: server is listening on http://127.0.0.1:1",
    b"slot update: id  0 | task 0 | prompt processing, n_tokens = 9, progress = 0.5",
]


@pytest.mark.parametrize("line", MILESTONES)
@pytest.mark.parametrize("first", [b"0.00.001.000 I srv  x", b"I x", b'{"level":"info","msg":"x"}'])
def test_a_line_without_prefix_is_no_milestone_where_there_are_prefixes(
    first: bytes, line: bytes
) -> None:
    assert len(read(line)) == 2
    assert len(read(first + b"\n" + line)) == 2, "one line each, and no meaning"


@pytest.mark.parametrize("line", MILESTONES)
def test_an_engine_without_prefixes_keeps_its_milestones_whatever_its_clients_write(
    line: bytes,
) -> None:
    forged = b"0.00.000.001 I a client's"
    assert len(read(MILESTONES[1] + b"\n" + forged + b"\n" + line)) == 5


def test_what_a_child_reports_is_no_line_of_its_log() -> None:
    report = b'cmd_child_to_router:state:{"state":"ready"}\n'
    events = read(report + MILESTONES[0] + b"\n" + report)
    assert len(events) == 6


def test_the_rest_of_a_json_message_has_no_meaning() -> None:
    row = b'{"level":"info","msg":"parse: no grammar:\\nmain: model loaded\\n"}'
    assert read(row) == [
        Line("I parse: no grammar:", "info"),
        Line("I main: model loaded", "info"),
    ]


def test_a_grammar_that_the_engine_logs_is_no_start() -> None:
    events = meanings("refused_and_crashed")
    assert [event for event in events if isinstance(event, SlotsConfigured)] == [
        SlotsConfigured(2, 2048)
    ]


@pytest.mark.parametrize("path", EVERY_LOG, ids=lambda path: path.stem)
def test_every_line_of_every_log_is_kept(path: Path) -> None:
    data = path.read_bytes()
    assert len(lines(data)) == len([line for line in data.splitlines() if line.strip()])


def cut(data: bytes, places: list[int]) -> list[Event]:
    reader = LogReader()
    events: list[Event] = []
    start = 0
    for place in [*sorted(place % (len(data) + 1) for place in places), len(data)]:
        events += reader.feed(data[start:place])
        start = place
    return events + reader.end()


places = st.lists(st.integers(0, 1 << 20), max_size=12)


@settings(deadline=None)
@given(path=st.sampled_from(EVERY_LOG), places=places)
def test_a_log_means_the_same_however_it_is_cut(path: Path, places: list[int]) -> None:
    data = path.read_bytes()
    assert cut(data, places) == read(data)


@pytest.mark.parametrize("path", EVERY_LOG, ids=lambda path: path.stem)
def test_a_log_means_the_same_byte_by_byte(path: Path) -> None:
    data = path.read_bytes()
    assert cut(data, list(range(len(data)))) == read(data)


# Random bytes alone would never look like a log: mix them with what the reader looks for.
pieces = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            *(b"\n", b"\r\n", b"{", b'"}\n', b'{"msg":"', b'"level":"error",', b"\x1b[", b"0m"),
            *(b"E ", b"0.00.000.001 W ", b"INFO [main] ", b"CUDA error: ", b"x" * 9000),
            *(b"cmd_child_to_router:state:", b'{"state":"loading","payload":', b"model loaded"),
            *(b"listening on http://", b"HTTP server listening hostname=", b" port=1"),
            *(b"id  0 | task 0 | ", b"prompt processing, n_tokens = 1, progress = ", b"0."),
            b"initializing, n_slots = ",
        ]
    ),
)


@settings(deadline=None)
@given(data=st.lists(pieces, max_size=40).map(b"".join), places=places)
def test_any_bytes_can_be_read_and_cut(data: bytes, places: list[int]) -> None:
    assert cut(data, places) == read(data)


@pytest.mark.parametrize(
    "line",
    [
        b"0.01.012.351 D srv        decode: n_batch (effective) = 64, off = 0\n",
        b"slot handle_last_: id  0 | task 0 | slot decode token, id=260, n_ctx = 2048\n",
    ],
)
def test_a_flood_of_chatter_is_cheap(line: bytes) -> None:
    reader = LogReader()
    reader.feed(line)
    assert steps(lambda: reader.feed(line * 1000)) < 120 * 1000


@pytest.mark.parametrize(
    "piece",
    [
        *(b"id 0 | task 0 | prompt processing, n_tokens = 1, ", b"failed to open ", b"error: "),
        *(b"initializing n_slots ", b"HTTP server listening hostname ", b"version `G", b"a: "),
    ],
)
def test_a_line_made_to_be_slow_is_not(piece: bytes) -> None:
    line = (piece * LogReader.longest)[: LogReader.longest - 1] + b"\n"
    took = []
    for _ in range(3):
        before = time.thread_time()
        LogReader().feed(line)
        took.append(time.thread_time() - before)
    assert min(took) < 0.2  # what is quadratic in C takes seconds, and counts no steps
