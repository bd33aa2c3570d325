"""livseg demo as a user runs it, shortened, and what it does when it is run again or interrupted."""

import re


def test_demo_ends_with_dice_and_pictures_and_goes_on_where_it_stopped(workplace, tmp_path):
    folder = tmp_path / "demo"
    command = ("livseg", "demo", "--out", folder, "--cases", 5, "--epochs", 1, "--iterations", 2, "-device", "cpu")
    said = workplace.run(*command)
    rows = re.findall(r"\| unseen_00\d \| (0\.\d+) \| (0\.\d+|nan) \|", said)
    assert len(rows) == 2
    assert f"everything is in {folder}" in said
    report = (folder / "evaluation" / "report.html").read_text()
    assert report.count('aria-label="axial slice') == report.count('aria-label="coronal slice') == 2
    assert report.count('href="data:image/png;base64,') == 4, "the CT must lie behind the outlines"
    assert (folder / "dice.md").read_text().strip() in said
    model = folder / "nnUNet_results/Dataset901_Phantom/DPCNetTrainer__DPCNetPlans__3d_fullres/fold_all"
    trained = (model / "checkpoint_final.pth").stat().st_mtime_ns
    assert len(re.findall(r"\| unseen_00\d \|", workplace.run(*command))) == 2
    assert (model / "checkpoint_final.pth").stat().st_mtime_ns == trained, "a finished training must not run again"


def test_demo_shows_why_a_step_failed(workplace, tmp_path):
    folder = tmp_path / "demo"
    workplace.env["nnUNet_n_proc_DA"] = "none"  # nnU-Net cannot read this as a number
    command = ("livseg", "demo", "--out", folder, "--cases", 5, "--epochs", 1, "--iterations", 1, "-device", "cpu")
    said = workplace.run(*command, status=1)
    assert re.search(r"livseg demo: nnUNetv2_plan_and_preprocess failed \(exit status 1\)", said)
    assert "ValueError" in said and f"{folder / 'logs' / 'preprocess.log'}" in said
