"""From trained models to segmentations: the features that nnU-Net's own prediction lacks."""
