"""The shell that runs the program: the loop of events and actions, the worker pool, signals."""
