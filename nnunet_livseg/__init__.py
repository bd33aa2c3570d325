"""Liver and liver-tumor segmentation in CT on nnU-Net v2. Importing this package imports no torch."""

__version__ = "0.1.0"
