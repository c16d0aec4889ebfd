"""The database and logging."""
