"""What people may demand: a copy of their data, and the end of their account."""
