"""`dragonfly privacy audit`: canaries go through a live instance; all that it keeps is searched for them."""
