"""Rules that correct a predicted label map, tuned on a cross-validation and kept only if they help.

steps              the rules: what each does to a label map, and how it is written
step_scores        what a training's validation cases score with some steps
tuning             which steps help
tuning_result      what a tuning found
steps_file         ``livseg_postprocessing.json`` in the model's folder
table              the outcome as text
postprocess_folder a folder of label maps
"""

from nnunet_livseg.postprocessing.steps import LargestLiver, SmallestLesion, Step, TumorInLiver, apply, parse_step
from nnunet_livseg.postprocessing.steps_file import load_postprocessing

__all__ = ["LargestLiver", "SmallestLesion", "Step", "TumorInLiver", "apply", "load_postprocessing", "parse_step"]
