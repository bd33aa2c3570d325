"""The one module that nnU-Net's trainer search imports; see ``nnunet_livseg.startup``.

nnU-Net imports it as a top-level module and drops it again, so it only hands on the classes of the real module: the
same objects as a normal import, which can be pickled and sent to DDP's processes.
"""

from nnunet_livseg.trainers import TRAINERS, LivSegTrainer  # noqa: F401

globals().update(TRAINERS)
