"""Masks and spacing in, numbers out. Knows nothing of networks."""
