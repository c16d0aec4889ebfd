"""People and organisations that hold a wallet."""
