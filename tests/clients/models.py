"""The models that the clients' programs talk to: what they say is known beforehand."""

from __future__ import annotations

from pathlib import Path

from llamasup.models.demo import reciting_model
from tests.harness import counting_model

_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'

_TEMPLATE = """\
{%- if tools %}
{{- 'Tools:' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\nFor each call, write\\n<tool_call>\\n{"name": <name>, "arguments": <arguments>}' }}
{{- '\\n</tool_call>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{{- message.content or '' }}
{%- for call in message.tool_calls %}
{%- if call.function %}{%- set call = call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{{- call.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- elif message.role == 'tool' %}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>\\n' }}
{%- else %}
{{- message.content + '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|go|>' }}{%- endif %}
"""
"""From this the engine learns what a call of a tool looks like."""

_WIDE = 200_000
"""As slow as a large model: some 10 ms a token."""


def configuration(engine: str, folder: Path) -> dict[str, object]:
    """`count` says " 0 1 2 …", `slow` the same, but slowly and to one client at a time; `tools`
    calls a tool, and `embed` makes vectors."""
    count = counting_model(folder / "count.gguf")
    slow = counting_model(folder / "slow.gguf", hidden=_WIDE)
    tools = folder / "tools.gguf"
    tools.write_bytes(reciting_model([_CALL], context=8192, name="tools", template=_TEMPLATE))
    models = {
        "count": {"path": str(count), "parallel": 2},
        "slow": {"path": str(slow), "context_size": 4096},
        "tools": {"path": str(tools), "extra_args": ["--jinja"]},
        "embed": {"path": str(count), "purpose": "embed"},
    }
    return {
        "engine.command": engine,
        "pool.max_queue": 1,
        **{
            f"models.{name}.{key}": value
            for name, settings in models.items()
            for key, value in {"threads": 1, **settings}.items()
        },
    }
