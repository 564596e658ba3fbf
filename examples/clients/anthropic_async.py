"""Anthropic's own library, with asyncio.

LLAMASUP_URL=http://127.0.0.1:8080 python anthropic_async.py
"""

import asyncio
import os

import anthropic

question = [{"role": "user", "content": "Count!"}]


async def main() -> None:
    url = os.environ["LLAMASUP_URL"]
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none") as client:

        async def told(tokens: int, model: str = "count") -> str:
            asked = client.messages.stream(model=model, messages=question, max_tokens=tokens)
            async with asked as stream:
                return "".join([text async for text in stream.text_stream])

        print("at once:", *await asyncio.gather(told(3), told(4)), sep="")

        try:
            await told(1, "none")
        except anthropic.NotFoundError as error:
            print("error:", error.body["error"]["type"])

        task = asyncio.create_task(told(2000, "slow"))
        await asyncio.sleep(1)
        task.cancel()
        hasty = client.with_options(timeout=10, max_retries=0)
        await hasty.messages.create(model="slow", messages=question, max_tokens=1)
        print("left: free again")


asyncio.run(main())
