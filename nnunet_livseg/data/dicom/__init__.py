"""Read DICOM: the series of a study, and one CT series as a volume. Needs the extra ``nnunet-livseg[dicom]``."""

from nnunet_livseg.data.dicom.listing import Series, choose, list_series
from nnunet_livseg.data.dicom.reading import SeriesInfo, read_series
from nnunet_livseg.data.dicom.study_files import dicom_files

__all__ = ["Series", "SeriesInfo", "choose", "dicom_files", "list_series", "read_series"]
