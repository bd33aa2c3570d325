"""The attention modules of the papers, one idea per file."""
