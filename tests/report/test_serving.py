"""The script that docs/serving.md gives to Orthanc, on a stand-in for Orthanc's two addresses and for the network."""

import http.server
import io
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pydicom
import pytest
from dicom_samples import FRAME_OF_REFERENCE
from io_samples import ct_array, dicom_slices, save_slices

PROJECT = Path(__file__).resolve().parents[2]
LIVSEG = """#!{python}
import sys
sys.path[:0] = {places!r}
from dicom_samples import result
from io_samples import label_array
from nnunet_livseg.cli.dispatch import parser_of
from nnunet_livseg.data.dicom import choose, dicom_files, list_series
from nnunet_livseg.data.dicom.reading import read_listed
from nnunet_livseg.report.result_folder import ResultFiles, write_result

args = parser_of(sys.argv[1]).parse_args(sys.argv[2:])
files = ResultFiles(report=not args.no_report, formats=args.formats, identifiers=args.identifiers)
with dicom_files(args.inputs[0]) as found:
    image, info = read_listed(choose(list_series(found)))
    write_result(result(image, info, label_array()), args.out, files=files)
sys.exit(3)  # one object could not be written
"""


@pytest.mark.skipif(not shutil.which("curl"), reason="the script needs curl")
def test_the_script_for_orthanc_sends_segmentation_and_report_back(tmp_path):
    save_slices(dicom_slices(ct_array(), FrameOfReferenceUID=FRAME_OF_REFERENCE), tmp_path / "study")
    archive = Path(shutil.make_archive(str(tmp_path / "series"), "zip", tmp_path / "study")).read_bytes()
    received = []

    class Orthanc(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/series/abc-1/archive" else 404)
            self.end_headers()
            self.wfile.write(archive)

        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "livseg"
    places = [str(PROJECT), *(str(PROJECT / "tests" / part) for part in ("report", "io"))]
    command.write_text(LIVSEG.format(python=sys.executable, places=places))
    script = tmp_path / "segment_series.sh"
    script.write_text(re.search(r"```sh\n(.*?)```", (PROJECT / "docs/serving.md").read_text(), re.DOTALL)[1])
    for path in (command, script):
        path.chmod(0o755)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Orthanc) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "ORTHANC": f"http://127.0.0.1:{server.server_port}",
            "PYTHONPATH": str(PROJECT),
            "TMPDIR": str(tmp_path / "bin"),
            "HOME": str(tmp_path),
        }
        done = subprocess.run([script, "abc-1"], env=environment, capture_output=True, text=True, check=False)
        sent = len(received)
        command.write_text("#!/bin/sh\nexit 1\n")
        failed = subprocess.run([script, "abc-1"], env=environment, capture_output=True, text=True, check=False)
        missing = subprocess.run([script, "other"], env=environment, capture_output=True, text=True, check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert failed.returncode == 1 and len(received) == sent
    assert missing.returncode != 0 and "404" in missing.stderr
    objects = [pydicom.dcmread(io.BytesIO(content)) for path, content in received if path == "/instances"]
    assert sorted(one.Modality for one in objects) == ["SEG", "SR"]
    assert {one.PatientID for one in objects} == {"Secret"}
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"livseg"}  # nothing is left behind
