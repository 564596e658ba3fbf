"""Processes: how they are started, heard, ended and found again. This room knows no models."""
