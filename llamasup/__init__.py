"""llamasup: one process that owns every llama-server child and stands in front of them on one port."""

__version__ = "0.1.0"
