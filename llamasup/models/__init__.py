"""What can be served: model files, and the names that clients know them by."""
