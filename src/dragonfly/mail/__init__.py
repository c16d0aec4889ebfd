"""Mail: what Dragonfly writes to people, queued in the transaction that causes it and sent by the worker."""
