"""The functional core: decides everything, touches nothing (no clock, I/O, logging, randomness or torch)."""
