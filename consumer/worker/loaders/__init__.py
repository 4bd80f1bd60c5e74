"""One module per model format."""
