"""What is measured, one file per quantity; each yields rows and never raises for a target that misbehaves."""
