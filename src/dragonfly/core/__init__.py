"""Values and rules that everything else stands on: no I/O, standard library only."""
