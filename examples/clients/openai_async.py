"""OpenAI's own library, with asyncio: many at once, and a task that is cancelled.

LLAMASUP_URL=http://127.0.0.1:8080 python openai_async.py
"""

import asyncio
import os

import openai

question = [{"role": "user", "content": "Count!"}]


async def main() -> None:
    url = os.environ["LLAMASUP_URL"] + "/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        chat = client.chat.completions

        async def told(tokens: int, model: str = "count") -> str:
            stream = await chat.create(
                model=model, messages=question, max_tokens=tokens, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        both = await asyncio.gather(told(3), told(4))
        print("at once:", *both, sep="")

        vectors = await client.embeddings.create(model="embed", input="one")
        print("embeddings:", len(vectors.data[0].embedding))

        try:
            await chat.create(model="none", messages=question)
        except openai.NotFoundError as error:
            print("error:", error.code)

        # A task that is cancelled closes its connection, which stops the engine.
        task = asyncio.create_task(told(2000, "slow"))
        await asyncio.sleep(1)
        task.cancel()
        hasty = client.with_options(timeout=10, max_retries=0)
        await hasty.chat.completions.create(model="slow", messages=question, max_tokens=1)
        print("left: free again")

        try:
            await client.with_options(timeout=0.5, max_retries=0).chat.completions.create(
                model="slow", messages=question, max_tokens=2000
            )
        except openai.APITimeoutError as error:
            print("timeout:", type(error).__name__)


asyncio.run(main())
