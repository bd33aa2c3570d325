"""Identifiers of the patient and the study of a DICOM series, read only on request."""

from nnunet_livseg.data.dicom.headers import pydicom_module
from nnunet_livseg.data.dicom.reading import SeriesInfo

_TITLES = {
    "PatientName": "Name",
    "PatientID": "Patient ID",
    "PatientBirthDate": "Born",
    "PatientSex": "Sex",
    "StudyDate": "Study date",
    "AccessionNumber": "Accession number",
    "StudyInstanceUID": "Study UID",
    "SeriesInstanceUID": "Series UID",
}


def read_identifiers(series: SeriesInfo) -> dict[str, str]:
    """Titles and values that identify patient and study in the series' first file; empty ones are omitted."""
    header = pydicom_module().dcmread(series.files[0], stop_before_pixels=True, specific_tags=list(_TITLES), force=True)
    found = {title: str(header.get(keyword, "") or "").strip() for keyword, title in _TITLES.items()}
    return {title: value for title, value in found.items() if value}
