"""Published and own data sets into nnU-Net raw data sets.

One module per source finds the cases (``SOURCES``); ``conversion.convert`` does the same to all of them.
"""

from nnunet_livseg.data.convert import ircadb, lits, msd, plain_folder
from nnunet_livseg.data.convert.conversion import Settings, convert
from nnunet_livseg.data.convert.source_cases import SourceCase, SourceDataset

SOURCES = {"lits": lits.find, "msd": msd.find, "ircadb": ircadb.find, "folder": plain_folder.find}

__all__ = ["SOURCES", "Settings", "SourceCase", "SourceDataset", "convert"]
