"""One row for each metered request, 90 days."""
