"""What is kept about people, for how long and why; and the proofs that nothing else is."""
