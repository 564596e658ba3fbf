"""The llama-server program: where it is, how it is called, what its words mean."""
