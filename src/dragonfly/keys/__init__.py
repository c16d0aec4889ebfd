"""API keys: issue, look up, revoke."""
