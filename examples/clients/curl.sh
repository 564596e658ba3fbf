#!/bin/sh
# curl: a chat, and a stream event by event.
# LLAMASUP_URL=http://127.0.0.1:8080 sh curl.sh [curl's options, such as --cacert ca.pem]

ask() { curl --silent --show-error --no-buffer "$@" --json "$body" "$LLAMASUP_URL/v1/chat/completions"; }

body='{"model": "count", "messages": [{"role": "user", "content": "Count!"}], "max_tokens": 3}'
ask "$@"
echo
body='{"model": "count", "messages": [{"role": "user", "content": "Count!"}], "max_tokens": 3, "stream": true}'
ask "$@"
body='{"model": "none", "messages": []}'
ask --fail "$@"
echo "status for curl --fail: $?"
