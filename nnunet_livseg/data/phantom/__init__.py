"""A synthetic contrast-enhanced CT of the upper abdomen with known liver and tumors.

    make_case      one CT in memory: phases, label map, truth of every tumor
    write_dataset  an nnU-Net raw dataset of such cases

How it works: the anatomy is a list of *layers* (`layers.py`), painted over each other from the skin inwards. A layer is
an implicit function in millimeters (`shapes.py`) with a tissue (`tissues.py`), so any voxel grid can sample the same
patient. Who lies where: `torso.py`, `organs.py`, `liver.py`, `tumors.py`.
"""

from nnunet_livseg.data.phantom.phantom_case import PhantomCase, make_case
from nnunet_livseg.data.phantom.phantom_dataset import LABEL_STYLES, write_dataset
from nnunet_livseg.data.phantom.tissues import PHASES, TUMOR_TYPES

__all__ = ["LABEL_STYLES", "PHASES", "TUMOR_TYPES", "PhantomCase", "make_case", "write_dataset"]
