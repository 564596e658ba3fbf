"""The operator's side: an ASGI app behind the front, on a private socket."""
