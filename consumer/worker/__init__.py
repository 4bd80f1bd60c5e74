"""The child process that owns a device: loads models, batches records and infers. Only here torch is imported."""
