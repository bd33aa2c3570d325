"""Published and own data sets into nnU-Net raw data sets.

One module per source finds the cases (``SOURCES``); ``conversion.convert`` does the same to all of them.
"""

from nnunet_livseg.data.convert import folder, ircadb, lits, msd
from nnunet_livseg.data.convert.conversion import Settings, convert
from nnunet_livseg.data.convert.sources import SourceCase, SourceDataset

SOURCES = {"lits": lits.find, "msd": msd.find, "ircadb": ircadb.find, "folder": folder.find}

__all__ = ["SOURCES", "Settings", "SourceCase", "SourceDataset", "convert"]
