"""The llama-server program: where it is, how it is called, and what its output means."""
