"""What Ollama's APIs have in common: the form of errors and lines, and what is not obeyed. Pure.

Ollama streams unless a request says `"stream": false`, as lines of JSON. A client that waits for a
line may be sent blanks meanwhile: JSON allows them before a value.

What cannot be obeyed here, and is ignored as Ollama's users expect it of options:

- `num_ctx`: the context is the model's rung (`models.NAME.context_size`); nothing is reloaded.
- `num_gpu`, `num_thread`, `num_batch`, `use_mmap`, `main_gpu` and the like: how a model is launched
  is written in llamasup's configuration.
- `keep_alive`, but for 0, which unloads the model after the answer unless others use it:
  `pool.idle_unload` says when idle models are unloaded.
- `truncate`, `shift`: the engine says what does not fit.
- `penalize_newline`, `tfs_z`: no engine has them any more.

What would change the answer and cannot be obeyed is refused: `template`, `context` with tokens in
it, images in a raw prompt.
"""

from __future__ import annotations

import json
from abc import abstractmethod

import msgspec

from llamasup.apis.dialect import Dialect
from llamasup.apis.translation import Residence, Translation
from llamasup.errors import LlamasupError


class OllamaErrors(Dialect):
    """An API whose errors have Ollama's form."""

    stream_type = b"application/x-ndjson"

    def error_body(self, error: LlamasupError) -> object:
        """See `Dialect.error_body`."""
        return {"error": str(error)}

    def error_event(self, error: LlamasupError) -> bytes:
        """See `Dialect.error_event`."""
        return json.dumps(self.error_body(error)).encode() + b"\n"

    def comment(self, words: bytes) -> bytes:
        """See `Dialect.comment`. Lines of JSON have no room for words."""
        return b" "

    def corrected(self, status: int, body: bytes) -> bytes | None:
        """See `Dialect.corrected`."""
        try:
            match msgspec.json.decode(body):
                case {"error": {"message": str(message)}}:
                    return msgspec.json.encode({"error": message})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        return None


class Ollama(OllamaErrors):
    """One of Ollama's APIs that ask a model. No engine speaks them, so each request is
    translated."""

    @abstractmethod
    def translated(self, path: bytes, body: bytes) -> Translation | Residence:
        """The request as an engine is asked. Raises ClientError if it cannot be understood, or
        not be obeyed."""
