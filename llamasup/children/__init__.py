"""The llama-server processes: one child is one incarnation, a keeper owns a model's children."""
