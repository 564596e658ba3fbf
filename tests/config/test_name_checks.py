"""Names that cannot be, or that mean nothing or two things, in the exact words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.complaints import complaints, loaded

NAMES = "write printable characters without quotes, backslashes or spaces around them"
WRONG = {
    '[models.""]\npath = "a"': f'models."": "" cannot be a model\'s name; {NAMES}',
    '[models.x]\npath = "a"\naliases = [" y"]': (
        f'models.x.aliases[0]: " y" cannot be a model\'s name; {NAMES}'
    ),
    '[models.X]\npath = "a"\n[models.x]\npath = "a"': (
        'models.x: "X" has the same name; rename one of them'
    ),
    '[models.a]\npath = "a"\naliases = ["B"]\n[models.b]\npath = "a"': (
        'models.a.aliases[0]: "B" already means "b"; choose another'
    ),
    '[models.a]\npath = "a"\naliases = ["z"]\n[models.b]\npath = "a"\naliases = ["Z"]': (
        'models.b.aliases[0]: "Z" already means "a"; choose another'
    ),
    '[server]\ndefault_model = "x"': (
        'server.default_model: there is no model "x"; add [models.x]'
    ),
    '[server]\ndefault_model = "Qwen"\n[models.qwen3]\npath = "a"\n[models.gemma]\npath = "a"': (
        'server.default_model: there is no model "Qwen"; did you mean "qwen3"?'
    ),
    '[server]\ndefault_model = "gtp"\n[models.qwen3]\npath = "a"\naliases = ["GPT"]': (
        'server.default_model: there is no model "gtp"; did you mean "GPT"?'
    ),
    '[pool]\npreload = ["gpt"]\n[models.qwen3]\npath = "a"\naliases = ["gpt"]': (
        'pool.preload[0]: "gpt" is not a model\'s own name; write "qwen3"'
    ),
    '[groups.large]\nmembers = ["b", "zzz"]\n[models.b]\npath = "a"': (
        'groups.large.members[1]: there is no model "zzz"; known are "b"'
    ),
    '[pool]\npreload = ["q:a"]\n[models.q]\npath = "a"\n[models.q.variants.a]': (
        'pool.preload[0]: "q:a" is not a model\'s own name; write "q"'
    ),
    '[models.q]\npath = "a"\naliases = ["Q:A"]\n[models.q.variants.a]': (
        'models.q.aliases[0]: "Q:A" already means "q:a"; choose another'
    ),
    '[models.q]\npath = "a"\n[models.q.variants.a]\naliases = ["b"]\n[models.b]\npath = "a"': (
        'models.q.variants.a.aliases[0]: "b" already means "b"; choose another'
    ),
    '[pool]\npreload = ["b", "zzz"]\n[models.b]\npath = "a"\n[models.a]\npath = "a"': (
        'pool.preload[1]: there is no model "zzz"; known are "a" and "b"'
    ),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.items())
def test_a_contradiction_is_told_with_its_place_its_key_and_its_cure(
    folder: Path, text: str, complaint: str
) -> None:
    assert complaints(text) == [f"llamasup.toml: {complaint}"]


@pytest.mark.parametrize("name", ["qwen3", "Qwen3", "gpt", "GPT"])
def test_the_default_model_may_be_written_as_clients_may_ask_for_it(
    folder: Path, name: str
) -> None:
    text = f'[server]\ndefault_model = "{name}"\n[models.qwen3]\npath = "a"\naliases = ["gpt"]'
    assert loaded(text).server.default_model == name


def test_models_that_only_a_folder_can_hold_may_be_named(folder: Path) -> None:
    found = '[discover]\nfolders = ["models"]\n'
    config = loaded(found + '[server]\ndefault_model = "x"\n[pool]\npreload = ["y"]')
    assert (config.server.default_model, config.pool.preload) == ("x", ("y",))
