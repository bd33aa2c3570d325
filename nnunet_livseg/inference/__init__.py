"""From trained models to segmentations: what nnU-Net's own prediction lacks."""
