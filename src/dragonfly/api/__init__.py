"""JSON answers of the control plane."""
