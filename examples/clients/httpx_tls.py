"""httpx over TLS, with an authority of one's own in LLAMASUP_CA.

LLAMASUP_URL=https://127.0.0.1:8443 LLAMASUP_CA=ca.pem python httpx_tls.py
"""

import json
import os
import ssl

import httpx

url = os.environ["LLAMASUP_URL"]
chat = {"model": "count", "messages": [{"role": "user", "content": "Count!"}]}

with httpx.Client(verify=ssl.create_default_context(cafile=os.environ["LLAMASUP_CA"])) as client:
    reply = client.post(f"{url}/v1/chat/completions", json={**chat, "max_tokens": 5})
    print("chat:", reply.json()["choices"][0]["message"]["content"], sep="")
    print("protocol:", reply.http_version)

    body = {**chat, "max_tokens": 5, "stream": True}
    words = []
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                [choice] = json.loads(line.removeprefix("data: "))["choices"]
                words.append(choice["delta"].get("content") or "")
    print("stream:", *words, sep="")

    body = {**chat, "model": "slow", "max_tokens": 2000, "stream": True}
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
    body = {**chat, "model": "slow", "max_tokens": 1}
    client.post(f"{url}/v1/chat/completions", json=body, timeout=10).raise_for_status()
    print("left: free again")

try:
    httpx.get(f"{url}/health")
except httpx.ConnectError as error:
    print("stranger:", "CERTIFICATE_VERIFY_FAILED" in str(error))
