"""The networks of the papers, at the geometry that plans give."""
