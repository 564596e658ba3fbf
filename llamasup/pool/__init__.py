"""Which request gets which child, and when."""
