"""Upstream providers: addresses, connections, dialects, and what their answers mean."""
