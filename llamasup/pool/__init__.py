"""Who gets which child, and when."""
