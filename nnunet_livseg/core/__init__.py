"""Words that both halves use: errors, names, files, nnU-Net's folders, labels, jobs, memory."""
