"""Data for nnU-Net: the phantom, checks, converters. Knows nothing of networks."""
