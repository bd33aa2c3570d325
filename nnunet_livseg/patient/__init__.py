"""One patient's CT, segmented: what was found, in numbers and on the grid of the CT."""
