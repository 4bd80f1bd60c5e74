"""Measurements of the program beside ceilings, hand-written loops and other systems, on one machine in one run."""

PIXELS = 784
"""What one record's image holds: FP32 values."""
EXPORTED, WEIGHTS = "mlp.pt2", "mlp.safetensors"
"""The network's files: for the program, and for the loops."""
