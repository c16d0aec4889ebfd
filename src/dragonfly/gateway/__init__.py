"""The data plane: /v1, from the socket to the provider and back."""
