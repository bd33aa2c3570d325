"""Names of the poolings that the papers compare."""

POOLINGS = {"avg": ("avg",), "max": ("max",), "both": ("avg", "max")}
