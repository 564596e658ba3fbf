"""Who asks, what he may, and how much of it is left to him; and which web pages may ask."""
