"""Who may come, and what they may do: web pages, and whoever has the operator's key."""
