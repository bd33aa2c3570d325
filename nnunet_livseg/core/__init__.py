"""Basics that both halves share: errors, names, files, nnU-Net's folders, labels, jobs, memory."""
