"""Public pages: rendered on the server, without scripts, cookies or anything from elsewhere."""
