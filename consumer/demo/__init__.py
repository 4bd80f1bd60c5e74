"""The demo: real handwritten digits, three small models, a broker, and a table that proves nothing was lost."""
