"""One image: read, write, grid, orientation, Hounsfield units, masks, diameters, crop to the liver."""
