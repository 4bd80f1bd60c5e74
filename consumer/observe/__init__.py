"""What operators see: figures, log lines, health.

Everything here is fed with the events and actions that the supervisor's loop sees anyway, and changes nothing in them.
It must not know how they came about, nor decide anything.
"""
