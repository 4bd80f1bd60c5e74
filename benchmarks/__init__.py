"""Measurements of the program beside loops that a good engineer would write by hand."""

PIXELS = 784
"""What one record's image holds: FP32 values."""
EXPORTED, WEIGHTS = "mlp.pt2", "mlp.safetensors"
"""The network's files: for the program, and for the loops."""
