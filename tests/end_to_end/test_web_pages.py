"""The web pages of the embedded engine work below /upstream/, as a browser loads and uses them."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.harness import chat, running

NAME = "o/n x"


def links(page: str) -> set[str]:
    """What a page's head loads: scripts, styles, icons."""
    found = re.findall(r'(?:href|src)="([^"]+)"|import\("([^"]+)"\)', page)
    return {link for pair in found for link in pair if link and "splash" not in link}


@pytest.mark.parametrize("prefix", ["", "/olla/llamacpp"])
async def test_the_page_its_parts_and_its_questions_reach_the_engine(
    count_model: Path, prefix: str
) -> None:
    config = {
        "engine.command": "embedded",
        f"models.{NAME}.path": str(count_model),
        f"models.{NAME}.threads": 1,
        "models.other.path": str(count_model),
        "server.path_prefixes": ["/olla/llamacpp"],
    }
    async with (
        running(config) as llamasup,
        httpx.AsyncClient(base_url=llamasup.url, follow_redirects=True, timeout=60) as browser,
    ):
        page = await browser.get(f"{prefix}/upstream/o/n%20x")
        assert page.url.path == f"{prefix}/upstream/{NAME}/"
        assert page.headers["content-type"].startswith("text/html")
        assert len(links(page.text)) >= 4
        for link in links(page.text):
            part = await browser.get(page.url.join(link))
            assert part.status_code == 200, link
            assert part.content
        for question in ("./props", "./v1/models", "./slots"):
            assert (await browser.get(page.url.join(question))).status_code == 200
        answer = await browser.post(
            page.url.join("./v1/chat/completions"),
            json=chat(3, stream=False),
            headers={"Origin": llamasup.url},
        )
        assert answer.json()["choices"][0]["message"]["content"] == " 0 1 2"
        assert (await llamasup.model_status("other"))["loads"] == 0
