"""The composition root: the one package that names concrete parts and puts them together."""
