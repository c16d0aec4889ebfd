"""The installed program as its users see it: real processes, real files, real sockets."""
