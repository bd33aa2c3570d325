"""What only training uses: checkpoints, signals, augmentation, checks of the preprocessed data, initial weights."""
