"""Which requests are allowed: those of web pages, and those with the operator's key."""
