"""What Ollama's clients read of a model is what its header and its state say."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from attrs import evolve

from llamasup.control import ollama_documents
from llamasup.control.ollama_documents import Loaded, Shown, capabilities, refusal, shown, tag
from llamasup.models.facts import Facts
from llamasup.models.gguf import Elided, Header, Value
from llamasup.models.purpose import Purpose

FACTS = Facts("qwen3", 7_600_000_000, "Q4_K_M", 40960, 1 << 32, 1_700_000_000.5)
METADATA: dict[str, Value] = {
    "general.architecture": "qwen3",
    "general.license": "apache-2.0",
    "qwen3.context_length": 40960,
    "qwen3.heads": (1, 2),
    "tokenizer.ggml.tokens": Elided(151936),
}


def header(**more: Value) -> Header:
    named = {key.replace("__", "."): value for key, value in more.items()}
    return Header("qwen3", {**METADATA, **named}, (), 0)


def model(**more: Any) -> Shown:
    known = {"facts": FACTS, "header": header(), "template": "", "projector": None}
    return Shown(**{**known, "purpose": Purpose.GENERATE, "context": None, **more})


def test_a_tag_has_what_listings_show() -> None:
    told = tag("qwen3:8b", FACTS)
    assert json.loads(json.dumps(told)) == told
    assert (told["name"], told["model"], told["size"]) == ("qwen3:8b", "qwen3:8b", 1 << 32)
    assert datetime.fromisoformat(told["modified_at"]).timestamp() == 1_700_000_000.5
    assert told["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3",
        "families": ["qwen3"],
        "parameter_size": "7.6B",
        "quantization_level": "Q4_K_M",
    }


def test_a_digest_is_that_of_a_files_state() -> None:
    digests = [
        tag(name, facts)["digest"]
        for name, facts in (("a", FACTS), ("a", FACTS), ("b", FACTS), ("a", None))
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.parametrize(("seconds", "year"), [(-1e9, 1970), (1e300, 2100)])
def test_a_file_may_claim_any_time(seconds: float, year: int) -> None:
    told = tag("a", evolve(FACTS, modified=seconds))
    assert datetime.fromisoformat(told["modified_at"]).year == year


def test_a_model_whose_header_is_not_known_yet_is_listed_all_the_same() -> None:
    told = tag("a\udcff", None)
    assert (told["size"], told["details"]["families"]) == (0, [])


def test_a_loaded_model_tells_what_it_takes_and_when_it_goes() -> None:
    loaded = Loaded({"host": 1, "CUDA0": 2, "CUDA1": 3}, 8192, 1_800_000_000.0)
    told = ollama_documents.running("a", FACTS, loaded)
    assert (told["size"], told["size_vram"], told["context_length"]) == (6, 5, 8192)
    assert datetime.fromisoformat(told["expires_at"]).timestamp() == 1_800_000_000.0
    never = ollama_documents.running("a", FACTS, Loaded({}, None, None))
    assert datetime.fromisoformat(never["expires_at"]).year == 2100


def test_editors_find_the_context_in_the_models_info() -> None:
    told = shown(model(template="{{ messages }}", context=4096))
    info = told["model_info"]
    assert info[f"{info['general.architecture']}.context_length"] == 40960
    assert (info["qwen3.heads"], info["tokenizer.ggml.tokens"]) == ([1, 2], None)
    assert info["general.parameter_count"] == 7_600_000_000
    assert (told["license"], told["parameters"]) == ("apache-2.0", "num_ctx 4096")
    assert told["template"] == "{{ messages }}"
    assert shown(model())["parameters"] == ""


def test_a_model_that_cannot_be_read_is_shown_all_the_same() -> None:
    told = shown(model(facts=None, header=None, purpose=None))
    assert (told["model_info"], told["capabilities"]) == ({}, ["completion"])


@pytest.mark.parametrize(
    ("known", "can"),
    [
        ({}, ["completion"]),
        ({"template": "{% if tools %}"}, ["completion", "tools"]),
        ({"template": "mytools_x"}, ["completion"]),
        ({"template": "{% if enable_thinking %}"}, ["completion", "thinking"]),
        ({"template": "<think>"}, ["completion", "thinking"]),
        ({"header": header(tokenizer__ggml__fim_pre_token_id=1)}, ["completion", "insert"]),
        ({"projector": header()}, ["completion", "vision"]),
        (
            {"projector": header(clip__has_vision_encoder=False, clip__has_audio_encoder=True)},
            ["completion", "audio"],
        ),
        ({"purpose": Purpose.EMBED, "template": "tools"}, ["embedding"]),
        ({"purpose": Purpose.EMBED_ANYHOW}, ["embedding"]),
        ({"purpose": Purpose.RERANK}, []),
    ],
)
def test_what_a_model_can_do_is_told(known: dict[str, Any], can: list[str]) -> None:
    assert capabilities(model(**known)) == can


@pytest.mark.parametrize("path", ["pull", "push", "create", "copy", "delete"])
def test_a_refusal_says_what_to_do_here(path: str) -> None:
    words = refusal(f"/api/{path}", "qwen3")
    assert words.startswith("llamasup ")
    assert "MODEL" not in words
    assert refusal(f"/api/{path}", "")
