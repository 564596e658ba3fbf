"""Who may come, and what they may do: web pages, and holders of the operator's key."""
