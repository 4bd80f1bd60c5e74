"""Measurements of the program beside loops that a good engineer would write by hand."""
