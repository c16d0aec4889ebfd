"""Append-only double entry in nano-USD."""
