"""An exit status and last lines become one cause, in the engine's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamasup.engine.failures import (
    Cause,
    Heard,
    Kind,
    Verdict,
    Where,
    explain,
    explain_death,
    symptom,
    verdict_on_reply,
)
from llamasup.engine.loglines import Line, LogReader

LOGS = Path(__file__).parent / "logs"
EVERY_LOG = sorted(LOGS.rglob("*.txt"))


def said(log: str) -> list[str]:
    reader = LogReader()
    events = reader.feed((LOGS / f"{log}.txt").read_bytes()) + reader.end()
    return [event.text for event in events if isinstance(event, Line)]


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        (
            "missing_file",
            Kind.MISSING_FILE,
            "failed to open GGUF file '/models/missing.gguf' (No such file or directory)",
        ),
        (
            "pypi_missing_file",
            Kind.MISSING_FILE,
            "failed to open GGUF file '/models/missing.gguf' (No such file or directory)",
        ),
        (
            "not_seen_here/missing_file_2023",
            Kind.MISSING_FILE,
            "failed to open /models/missing.gguf: No such file or directory",
        ),
        (
            "rpc_refused",
            Kind.REMOTE,
            "./src/ggml-rpc/ggml-rpc.cpp:650: Failed to connect to 127.0.0.1:59999",
        ),
        ("bad_magic", Kind.BAD_MODEL_FILE, "invalid magic characters: 'GGML', expected 'GGUF'"),
        ("empty_file", Kind.BAD_MODEL_FILE, "failed to read magic"),
        ("cut_header", Kind.BAD_MODEL_FILE, "failed to read key-value pairs"),
        (
            "cut_file",
            Kind.BAD_MODEL_FILE,
            "tensor 'output.weight' data is not within the file bounds, "
            "model is corrupted or incomplete",
        ),
        (
            "newer_gguf_version",
            Kind.BAD_MODEL_FILE,
            "this GGUF file is version 99 but this software only supports up to version 3",
        ),
        ("missing_tensor", Kind.BAD_MODEL_FILE, "tensor 'blk.0.attn_q.weight' not found"),
        ("missing_key", Kind.BAD_MODEL_FILE, "key not found in model: llama.block_count"),
        (
            "unknown_architecture",
            Kind.UNKNOWN_ARCHITECTURE,
            "unknown model architecture: 'llamx'",
        ),
        (
            "unknown_architecture_jsonl",
            Kind.UNKNOWN_ARCHITECTURE,
            "unknown model architecture: 'llamx'",
        ),
        ("unknown_flag", Kind.BAD_FLAG, "invalid argument: --frobnicate"),
        ("bad_flag_value", Kind.BAD_FLAG, 'error while handling argument "-c": stoi'),
        (
            "refused_combination",
            Kind.BAD_FLAG,
            "quantized V cache requires flash_attn to be enabled",
        ),
        (
            "address_in_use",
            Kind.ADDRESS_IN_USE,
            "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 12061",
        ),
        (
            "stale_unix_socket",
            Kind.ADDRESS_IN_USE,
            "couldn't bind HTTP server socket, hostname: /run/llamasup/st.sock, port: 9931",
        ),
        (
            "pypi_address_in_use",
            Kind.ADDRESS_IN_USE,
            "couldn't bind HTTP server socket, hostname: /run/llamasup/py.sock, port: 0",
        ),
        ("child_mode_stdin_closed", Kind.FINISHED, "EOF on stdin detected"),
    ],
)
def test_a_child_that_exits_with_1_says_why(log: str, kind: Kind, words: str) -> None:
    assert explain(1, said(log)) == Cause(kind, words)


@pytest.mark.parametrize(
    ("log", "where", "words"),
    [
        (
            "out_of_memory_weights",
            Where.WEIGHTS,
            "unable to allocate CPU buffer: insufficient memory (attempted to allocate 256.65 MB)",
        ),
        (
            "out_of_memory_weights_mapped",
            Where.WEIGHTS,
            "mmap failed: Cannot allocate memory",
        ),
        (
            "out_of_memory_kv",
            Where.KV,
            "failed to allocate buffer for kv cache: "
            "insufficient memory (attempted to allocate 3906.25 MB)",
        ),
        (
            "out_of_memory_rpc_kv",
            Where.KV,
            "failed to allocate buffer for kv cache",
        ),
        (
            "pypi_out_of_memory_kv",
            Where.KV,
            "failed to allocate buffer for kv cache: "
            "insufficient memory (attempted to allocate 5859.38 MB)",
        ),
        (
            "out_of_memory_compute",
            Where.COMPUTE,
            "failed to allocate compute pp buffers: "
            "insufficient memory (attempted to allocate 8418.25 MB)",
        ),
        (
            "not_seen_here/out_of_memory_cuda_weights",
            Where.WEIGHTS,
            "unable to allocate CUDA0 buffer: "
            "allocating 16384.00 MiB on device 0: cudaMalloc failed: out of memory",
        ),
        (
            "not_seen_here/out_of_memory_cuda_kv",
            Where.KV,
            "failed to allocate buffer for kv cache: "
            "allocating 12288.00 MiB on device 0: cudaMalloc failed: out of memory",
        ),
        (
            "not_seen_here/out_of_memory_cuda_compute",
            Where.COMPUTE,
            "failed to allocate compute pp buffers: "
            "allocating 3084.02 MiB on device 0: cudaMalloc failed: out of memory",
        ),
        (
            "not_seen_here/out_of_memory_hip",
            Where.WEIGHTS,
            "unable to allocate ROCm0 buffer: "
            "allocating 20480.00 MiB on device 0: hipMalloc failed: out of memory",
        ),
        (
            "not_seen_here/out_of_memory_vulkan_kv",
            Where.KV,
            "failed to allocate buffer for kv cache: "
            "Device memory allocation of size 1879048192 failed.",
        ),
        (
            "not_seen_here/out_of_memory_vulkan_too_large",
            Where.WEIGHTS,
            "unable to allocate Vulkan0 buffer",
        ),
        (
            "not_seen_here/out_of_memory_metal_weights",
            Where.WEIGHTS,
            "unable to allocate Metal buffer: failed to allocate buffer, size = 16384.00 MiB",
        ),
        (
            "not_seen_here/retried_without_pipeline_parallelism_in_vain",
            Where.COMPUTE,
            "failed to allocate compute pp buffers: "
            "Device memory allocation of size 416022528 failed.",
        ),
    ],
)
def test_a_load_out_of_memory_says_for_what_and_how_much(
    log: str, where: Where, words: str
) -> None:
    assert explain(1, said(log)) == Cause(Kind.OUT_OF_MEMORY, words, where)


@pytest.mark.parametrize(
    ("log", "where", "words"),
    [
        ("out_of_memory_cuda_while_decoding", Where.COMPUTE, "CUDA error: out of memory"),
        ("out_of_memory_hip_while_decoding", Where.COMPUTE, "ROCm error: out of memory"),
        (
            "out_of_memory_vulkan_thrown",
            Where.UNKNOWN,
            "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        ),
        (
            "out_of_memory_metal_while_decoding",
            Where.COMPUTE,
            "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        ),
    ],
)
def test_an_abort_out_of_memory_is_not_a_mere_crash(log: str, where: Where, words: str) -> None:
    assert explain(-6, said(f"not_seen_here/{log}")) == Cause(Kind.OUT_OF_MEMORY, words, where)


@pytest.mark.parametrize(
    ("exit", "log", "words"),
    [
        (-6, "out_of_threads", "Resource temporarily unavailable"),
        (-6, "pypi_out_of_threads", "Resource temporarily unavailable"),
        (
            1,
            "out_of_threads_while_loading",
            "Thread creation failed: Resource temporarily unavailable",
        ),
        (
            1,
            "pypi_out_of_threads_while_loading",
            "Thread creation failed: Resource temporarily unavailable",
        ),
    ],
)
def test_an_engine_that_cannot_make_its_threads_lacks_something_and_is_not_broken(
    exit: int, log: str, words: str
) -> None:
    assert explain(exit, said(log)) == Cause(
        Kind.SHORTAGE, f"it could have no more threads: {words}"
    )


def test_no_memory_for_the_tensors_is_no_crash() -> None:
    assert explain(-6, said("out_of_memory_tensors")).kind is Kind.OUT_OF_MEMORY


def test_threads_that_were_missing_beside_memory_are_one_more_sign_that_it_ran_out() -> None:
    story = [*said("out_of_memory_kv"), *said("out_of_threads")]
    assert explain(-6, story).kind is Kind.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("cuda_illegal_access", "CUDA error: an illegal memory access was encountered"),
        ("assertion", "/src/ggml/src/ggml.c:3108: GGML_ASSERT(ggml_can_repeat(b, a)) failed"),
    ],
)
def test_an_abort_says_what_it_stumbled_over(log: str, words: str) -> None:
    assert explain(-6, said(f"not_seen_here/{log}")) == Cause(Kind.CRASH, words)


def test_a_lost_rpc_server_is_no_crash_of_the_engine() -> None:
    heard = [Heard(1.0, line) for line in said("rpc_lost")]
    cause = explain_death(-6, heard, 1.0)
    assert cause.kind is Kind.REMOTE
    assert cause.words.endswith("Remote RPC server crashed or returned malformed response")
    said_by_a_client = [*heard[:-1], Heard(1.0, "crash: Remote RPC server crashed")]
    assert explain_death(-6, said_by_a_client, 1.0).kind is not Kind.REMOTE


def test_a_failed_wake_up_is_blamed_on_the_file_and_not_on_the_abort() -> None:
    cause = explain(-6, said("failed_wake_up"))
    assert cause.kind is Kind.MISSING_FILE
    assert "No such file or directory" in cause.words


def test_memory_found_at_the_second_try_is_not_out_of_memory() -> None:
    cause = explain(-11, said("not_seen_here/recovered_without_pipeline_parallelism"))
    assert cause.kind is Kind.CRASH


def test_what_an_engine_can_do_without_is_not_out_of_memory() -> None:
    cause = explain(1, said("not_seen_here/warnings_that_harm_nothing"))
    assert cause.kind is Kind.UNKNOWN


@pytest.mark.parametrize("log", ["debug_of_a_request", "prompt_too_long"])
def test_a_request_in_the_log_is_not_why_a_child_was_killed(log: str) -> None:
    assert explain(-9, said(log)).kind is Kind.KILLED


def test_a_prompt_quoted_in_debug_or_info_lines_is_not_believed() -> None:
    quotes = ["D prompt: CUDA error: out of memory", "I prompt: std::bad_alloc", "E real trouble"]
    assert explain(1, quotes) == Cause(Kind.UNKNOWN, "exited with 1; its last words: real trouble")


@pytest.mark.parametrize("exit", [1, 127])
def test_a_missing_library_is_not_a_missing_model(exit: int) -> None:
    cause = explain(exit, said("not_seen_here/missing_library"))
    assert cause.kind is Kind.ENGINE_UNUSABLE
    assert "libcudart.so.12" in cause.words


@pytest.mark.parametrize(
    "line",
    [
        "[Errno 2] No such file or directory: './llama-server'",
        "[Errno 8] Exec format error: './llama-server'",
        "[Errno 13] Permission denied: './llama-server'",
        "ModuleNotFoundError: No module named 'xllamacpp'",
        "llama-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found",
        "llama-server: symbol lookup error: libllama.so: undefined symbol: llama_x",
        "bash: ./llama-server: cannot execute binary file",
        "sh: 1: llama-server: Exec format error",
        "dyld[7]: Library not loaded: @rpath/libllama.dylib",
        "CUDA error: no kernel image is available for execution on the device",
        "llama_model_load_from_file_impl: no backends are loaded. hint: use ggml_backend_load()",
    ],
)
def test_an_engine_that_cannot_run_here_is_unusable(line: str) -> None:
    assert explain(None, [line]).kind is Kind.ENGINE_UNUSABLE


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("error: unknown argument: --x", Kind.BAD_FLAG),
        ("child.py: error: unrecognized arguments: --x", Kind.BAD_FLAG),
        ("llama_init: quantized V cache was requested, but this requires X", Kind.BAD_FLAG),
        ("OSError: [Errno 98] Address already in use", Kind.ADDRESS_IN_USE),
        ("load: error loading model vocabulary: unknown pre-tokenizer type: 'x'",
         Kind.UNKNOWN_ARCHITECTURE),
        ("listen: Address already in use", Kind.ADDRESS_IN_USE),
        ("gguf_init: failed to open GGUF file 'x' (Permission denied)", Kind.MISSING_FILE),
        ("unknown model architecture: 'x'", Kind.UNKNOWN_ARCHITECTURE),
        ("unknown tokenizer: 'x'", Kind.UNKNOWN_ARCHITECTURE),
        ("gguf_init: invalid magic number 00000000", Kind.BAD_MODEL_FILE),
        ("model is corrupted or incomplete", Kind.BAD_MODEL_FILE),
        ("load: tensor 'x' not found", Kind.BAD_MODEL_FILE),
        ("load: tensor 'x' has wrong shape; expected 3, got 4", Kind.BAD_MODEL_FILE),
        ("load: cannot find tokenizer vocab in model file", Kind.BAD_MODEL_FILE),
        ("gguf_init: encountered bad_alloc error while reading key 3", Kind.BAD_MODEL_FILE),
        ("gguf_init: GGUFv1 is no longer supported", Kind.BAD_MODEL_FILE),
        ("load: wrong number of tensors; expected 292, got 291", Kind.BAD_MODEL_FILE),
        ("srv  update_slots: decode() failed: std::bad_alloc", Kind.OUT_OF_MEMORY),
        ("unable to allocate CPU buffer", Kind.OUT_OF_MEMORY),
        ("std::bad_alloc", Kind.OUT_OF_MEMORY),
        ("UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", Kind.OUT_OF_MEMORY),
        ("insufficient memory", Kind.OUT_OF_MEMORY),
        ("MemoryError", Kind.OUT_OF_MEMORY),
        ("CUBLAS_STATUS_ALLOC_FAILED", Kind.OUT_OF_MEMORY),
        ("hipErrorOutOfMemory", Kind.OUT_OF_MEMORY),
        ("init: failed to allocate output buffer of size 12.00 MiB", Kind.OUT_OF_MEMORY),
        ("ggml_vulkan: vk::Queue::submit: ErrorDeviceLost", Kind.CRASH),
        ("libc++abi: terminating due to uncaught exception", Kind.CRASH),
        ("CUDA error: invalid argument", Kind.CRASH),
        ("/src/server-context.cpp:1076: the state is lost", Kind.CRASH),
        ("/src/ggml-cuda.cu:1: the state is lost", Kind.CRASH),
        ("/src/ggml.c:1: GGML_ASSERT(x > 0)", Kind.CRASH),
        ("./src/ggml.c:1: GGML_ASSERT(ctx->mem_buffer != NULL) failed", Kind.OUT_OF_MEMORY),
        ("  what():  Resource temporarily unavailable", Kind.SHORTAGE),
        ("thread constructor failed: Resource temporarily unavailable", Kind.SHORTAGE),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 4", Kind.SHORTAGE),
        ("RuntimeError: can't start new thread", Kind.SHORTAGE),
    ],
)  # fmt: skip
def test_lone_lines_that_point_at_a_cause(line: str, kind: Kind) -> None:
    assert symptom(line) is kind


@pytest.mark.parametrize(
    ("exit", "kind", "words"),
    [
        (-9, Kind.KILLED, "killed by SIGKILL (the kernel's, if memory ran out)"),
        (137, Kind.KILLED, "killed by SIGKILL (the kernel's, if memory ran out)"),
        (-15, Kind.KILLED, "killed by SIGTERM"),
        (-11, Kind.CRASH, "killed by SIGSEGV"),
        (-6, Kind.CRASH, "killed by SIGABRT"),
        (-4, Kind.ENGINE_UNUSABLE, "killed by SIGILL (this engine was built for another CPU)"),
        (-200, Kind.KILLED, "killed by signal 200"),
        (0xC0000005, Kind.CRASH, "ended with 0xC0000005"),
        (0xC0000135, Kind.ENGINE_UNUSABLE, "ended with 0xC0000135"),
        (3, Kind.UNKNOWN, "exited with 3"),
    ],
)
def test_without_a_telling_line_the_exit_tells(exit: int, kind: Kind, words: str) -> None:
    assert explain(exit, []) == Cause(kind, words)
    ordinary = "; its last words: listening on http://127.0.0.1:12063"
    last_words = "" if kind is Kind.KILLED else ordinary
    assert explain(exit, said("killed")) == Cause(kind, words + last_words)


def test_of_a_killed_childs_words_only_an_error_is_quoted() -> None:
    story = ["E srv  stop: it gets hot", "W srv  stop: oh dear", "I srv  stop: all slots are idle"]
    assert explain(-15, story).words == "killed by SIGTERM; its last words: it gets hot"
    assert explain(-15, story[1:]).words == "killed by SIGTERM"


def test_a_model_file_cut_while_mapped_is_a_sigbus_that_says_so() -> None:
    cause = explain(-7, said("mapped_file_cut"))
    assert cause.kind is Kind.CRASH
    assert "cut short" in cause.words


@pytest.mark.parametrize("log", ["ready_text", "address_in_use"])
def test_exit_0_is_no_failure(log: str) -> None:
    assert explain(0, said(log)) == Cause(Kind.FINISHED, "finished by itself")


def test_a_child_that_never_got_ready_is_quoted() -> None:
    assert explain(None, ["loading", ""]) == Cause(Kind.UNKNOWN, "loading")
    assert explain(None, []) == Cause(Kind.UNKNOWN, "said nothing")


def test_the_last_words_are_an_error_that_says_something() -> None:
    story = [
        "E load: failed to load model",
        "E load: the disk is on fire",
        "I srv  operator(): cleaning up before exit...",
        "E srv  llama_server: exiting due to model loading error",
        'cmd_child_to_router:state:{"state":"loading","payload":null}',
    ]
    assert explain(1, story).words == "exited with 1; its last words: the disk is on fire"


log_like = st.one_of(
    st.text(),
    st.sampled_from([line for path in EVERY_LOG for line in path.read_text().splitlines()]),
)


@settings(deadline=None)
@given(exit=st.none() | st.integers(-300, 1 << 33), lines=st.lists(log_like, max_size=20))
def test_any_end_has_a_cause_in_one_bounded_line(exit: int | None, lines: list[str]) -> None:
    words = explain(exit, lines).words
    assert words
    assert words.splitlines() == [words]
    assert len(words) < 1000


# --- deaths of children that were ready ---

NOW = 1000.0
RAN_OUT = ["std::bad_alloc", "CUDA error: out of memory", "decode() failed: std::bad_alloc"]
LISTENING = "0.00.001.000 I srv  llama_server: listening on http://127.0.0.1:8080"


def dead(exit: int, *lines: str, ago: float = 0.1) -> Cause:
    return explain_death(exit, [Heard(NOW - ago, line) for line in (LISTENING, *lines)], NOW)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("not_seen_here/out_of_memory_cuda_while_decoding", "CUDA error: out of memory"),
        ("not_seen_here/out_of_memory_hip_while_decoding", "ROCm error: out of memory"),
        (
            "not_seen_here/out_of_memory_vulkan_thrown",
            "vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        ),
        (
            "out_of_memory_tensors",
            "./src/ggml.c:1655: GGML_ASSERT(ctx->mem_buffer != NULL) failed",
        ),
    ],
)
def test_an_abort_for_memory_is_proof(log: str, words: str) -> None:
    cause = dead(-6, *said(log))
    assert (cause.kind, cause.words, cause.proven) == (Kind.OUT_OF_MEMORY, words, True)


def test_no_memory_of_the_hosts_may_be_the_doing_of_one_request() -> None:
    thrown = ["terminate called after throwing an instance of 'std::bad_alloc'", "  what():  "]
    for lines in (thrown, [*thrown[:1], "  what():  std::bad_alloc"]):
        cause = dead(-6, *lines)
        assert (cause.kind, cause.proven) == (Kind.OUT_OF_MEMORY, False)


def test_metal_gives_up_with_a_fatal_error() -> None:
    story = said("not_seen_here/out_of_memory_metal_while_decoding")
    assert dead(-6, *story, "/src/ggml-metal.m:1: fatal error").kind is Kind.OUT_OF_MEMORY


@pytest.mark.parametrize("log", ["cuda_illegal_access", "assertion"])
def test_any_other_abort_is_a_crash_in_its_own_words(log: str) -> None:
    story = said(f"not_seen_here/{log}")
    assert dead(-6, *story) == explain(-6, story)


def test_a_model_that_cannot_be_loaded_again_after_a_sleep_says_why() -> None:
    assert dead(-6, *said("failed_wake_up")) == explain(-6, said("failed_wake_up"))


def test_no_threads_for_a_request_is_a_shortage() -> None:
    assert dead(-6, *said("out_of_threads_when_asked")).kind is Kind.SHORTAGE


def test_what_was_said_long_before_a_death_does_not_explain_it() -> None:
    story = said("not_seen_here/out_of_memory_cuda_while_decoding")
    assert dead(-6, *story, ago=60).kind is Kind.CRASH
    assert dead(-6, *story, ago=60).words == "killed by SIGABRT"


def test_a_grammar_that_kills_an_engine_can_say_what_it_likes() -> None:
    assert dead(-11, *said("refused_and_crashed")).kind is Kind.CRASH


def test_a_child_that_left_with_its_parent_has_finished() -> None:
    assert dead(1, *said("child_mode_stdin_closed")).kind is Kind.FINISHED
    assert dead(0).kind is Kind.FINISHED


ENDS = [
    (-9, []),
    (-11, []),
    (-6, ["/src/ggml.c:3108: GGML_ASSERT(ggml_can_repeat(b, a)) failed"]),
    (-6, ["/src/ggml-cuda.cu:88: CUDA error", "CUDA error: an illegal memory access was met"]),
    (-6, ["terminate called after throwing an instance of 'std::out_of_range'", "  what():  at"]),
    (-6, ["double free or corruption (out)"]),
    (1, []),
    (0, []),
]
LOGGED = [
    "parse: error parsing grammar: expecting ::= at {}\n\n\n{}",
    "0.02.362.111 E srv    send_error: task id = 0, error: Invalid: {}",
    '0.02.365.555 W srv    operator(): got exception: {{"error":{{"message":"{}"}}}}',
    "0.02.365.555 W common_sampler_types_from_names: unable to match sampler by name '{}'",
    "0.02.365.555 E a line that llama-server has not thought of yet: {}",
]
loggable = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [line for path in EVERY_LOG for line in path.read_text().splitlines()]
            + [f"{prefix}{words}" for prefix in ("", "0.00.000.001 E ") for words in RAN_OUT]
            + ["terminate called after throwing an instance of 'std::bad_alloc'", "E CUDA error"],
        ),
        max_size=5,
    ).map("\n".join),
)


@settings(deadline=None)
@given(end=st.sampled_from(ENDS), logged=st.lists(st.sampled_from(LOGGED)), words=loggable)
def test_no_words_of_clients_change_why_a_child_died(
    end: tuple[int, list[str]], logged: list[str], words: str
) -> None:
    exit, last_words = end
    chatter = [line for form in logged for line in form.format(*[words] * 2).splitlines()]
    plain = dead(exit, "0.01.000.000 I slot 0", "srv 1", "srv 2", *last_words)
    quoting = dead(exit, *chatter, "0.01.000.000 I slot 0", "srv 1", "srv 2", *last_words)
    assert quoting == plain, "nor are they told to others"


# --- replies ---

SMALL, LARGE = 1000, 60 << 20


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "decode() failed: std::bad_alloc"),
        (500, "decode() failed: failed to allocate compute pp buffers"),
        (500, "decode() failed: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"),
        (500, "failed to allocate buffer for kv cache"),
        (500, "CUDA error: out of memory"),
        (500, "cudaMalloc failed: out of memory"),
        (500, "allocating 512.00 MiB on device 0: hipMalloc failed: out of memory"),
        (503, "vk::Device::allocateMemory: ErrorOutOfDeviceMemory"),
        (500, "insufficient memory (attempted to allocate 256.65 MB)"),
        (500, "std::bad_alloc"),
        (400, "std::bad_alloc"),
        (400, "Internal Server Error"),
        (500, "Internal Server Error"),
    ],
)
def test_replies_that_mean_out_of_memory(status: int, message: str) -> None:
    assert verdict_on_reply(status, message, SMALL) is Verdict.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (200, "std::bad_alloc"),
        (400, "what does CUDA error: out of memory mean?"),
        (400, "CUDA error: out of memory"),
        (400, "Invalid tool_choice: std::bad_alloc"),
        (400, "Failed to initialize samplers: std::bad_alloc"),
        (404, "std::bad_alloc"),
        (503, "Internal Server Error"),
        (500, "Internal Server Error: what does it mean?"),
        (500, "Unknown reasoning format: cuda"),
        (500, "Unknown reasoning format: CUDA error: out of memory"),
        (500, "Context size has been exceeded. failed to allocate"),
        (500, "decode() failed: Context size has been exceeded."),
        (400, "request (9000 tokens) exceeds the available context size (256 tokens)"),
        (503, "Loading model"),
        (500, ""),
    ],
)
def test_replies_that_mean_something_else(status: int, message: str) -> None:
    assert verdict_on_reply(status, message, SMALL) is Verdict.ITS_OWN


@pytest.mark.parametrize("status", [400, 500])
def test_a_body_that_the_engine_cannot_take_in_is_too_large(status: int) -> None:
    assert verdict_on_reply(status, "std::bad_alloc", LARGE) is Verdict.TOO_LARGE
    assert verdict_on_reply(status, "Internal Server Error", LARGE) is Verdict.TOO_LARGE
    decoding = verdict_on_reply(500, "decode() failed: std::bad_alloc", LARGE)
    assert decoding is Verdict.OUT_OF_MEMORY, "the body had been taken in"


QUOTING = [
    "Failed to parse input at pos 12: <tool_call>{}",
    "Failed to parse messages: Missing 'role' in message: {}",
    "Failed to parse tools: Missing tool function: {{}}; tools = [{}]",
    "Failed to parse tool call arguments as JSON: syntax error; last read: '{}'",
    "Invalid diff: '{}' not found at start of 'out of memory'",
    "Invalid tool_choice: {}",
    "Unknown reasoning format: {}",
    "decode() failed: Unexpected empty grammar stack after accepting piece: {} (42)",
    "\n---\nWhile executing CallExpression in source:\n…Jinja Exception: no role {}",
    "[json.exception.parse_error.101] parse error at line 1; last read: '{}'",
    "Field 'json_schema': \"json_schema\": unrecognized type {}",
    "a message that llama-server has not thought of yet, about {}",
    "{} is no role",
]
clients_words = st.one_of(
    st.text(), st.sampled_from([*RAN_OUT, "cuda", "failed to allocate buffer", "\nstd::bad_alloc"])
)


@given(
    status=st.sampled_from([400, 500, 503]), message=st.sampled_from(QUOTING), words=clients_words
)
def test_words_that_a_message_quotes_are_not_the_engines(
    status: int, message: str, words: str
) -> None:
    assert verdict_on_reply(status, message.format(words), SMALL) is Verdict.ITS_OWN
