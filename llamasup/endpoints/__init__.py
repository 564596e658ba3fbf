"""Instances elsewhere: names become addresses, each with its health, its models and its room."""
