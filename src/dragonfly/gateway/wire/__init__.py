"""What stands in request and answer bodies of each inference surface."""
