"""Other systems on the same records: each started by a small adapter, in an environment of its own below `.bench/`.

The adapters run there and import nothing of this project; `environments` makes the environments, `subjects` says how
each is started and what its guarantees are.
"""
