"""What accounts are told by mail although they asked for nothing: a welcome in three parts, and a low balance."""
