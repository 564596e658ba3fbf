"""Stream a chat through llamasup with nothing but the standard library.

python examples/stream.py "Hello!" [model]
"""

import json
import sys
from http.client import HTTPConnection

question, *model = sys.argv[1:] or ["Hello!"]
body = {"messages": [{"role": "user", "content": question}], "stream": True}
if model:
    body["model"] = model[0]

connection = HTTPConnection("127.0.0.1", 8080)
connection.request("POST", "/v1/chat/completions", json.dumps(body))
reply = connection.getresponse()
if reply.status != 200:
    sys.exit(reply.read().decode())
for line in reply:
    if line.startswith(b"data: {"):
        event = json.loads(line.removeprefix(b"data: "))
        if "error" in event:
            sys.exit(f"\n{event['error']['message']}")
        for choice in event["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
print()
