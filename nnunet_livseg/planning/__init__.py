"""Plans for a dataset: read from nnU-Net, written beside them, and the commands that come next."""
