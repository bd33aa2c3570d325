"""Write the tables that follow from the code into README.md and docs: python docs/generate.py

A table is between `<!-- generated: NAME -->` and `<!-- end -->`; a test says when one is stale. With --counts, one
training step of every row is counted anew, which takes minutes; MedNeXt needs the extra monai.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_livseg.cli import commands, dispatch
from nnunet_livseg.core.files import write_json
from nnunet_livseg.diagnostics.benchmark import STOCK
from nnunet_livseg.diagnostics.training_cost import COUNTS, MachineSpeed, cost_on, count_training, stored_counts
from nnunet_livseg.evaluation.printed_tables import TABLES as PRINTED
from nnunet_livseg.reference_networks import count_parameters
from nnunet_livseg.variants import VARIANTS, Variant

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def _parameters(row: Variant) -> str:
    """In millions; nothing for a row whose library a checkout need not have."""
    return "" if row.extra else f"{count_parameters(row) / 1e6:.2f}M"


def rows_of(paper: str) -> str:
    """Trainer, parameters and reproduced row of every variant of a paper."""
    lines = ["| trainer (`-tr`) | `livseg plan -m` | parameters | dimensions | reproduces |", "|---|---|---|---|---|"]
    for row in VARIANTS:
        if paper == row.paper.key:
            parameters = _parameters(row)
            dims = ", ".join(f"{dim}D" for dim in row.dims)
            note = f" ({row.note})" if row.note else ""
            lines.append(f"| `{row.trainer}` | `{row.name}` | {parameters} | {dims} | {row.reproduces}{note} |")
    return "\n".join(lines)


NETWORKS = {  # of every paper: its network's name, and its idea in one line
    "dpcnet": ("DPC-Net", "relates each pyramid level to its neighbors, by position and by channel"),
    "sfan": ("SFAN", "weights all encoder levels by attention and fuses them in one step"),
    "mpunet": ("MPU-Net", "position attention at stride 8; averages four full-resolution outputs"),
    "mfcnet": ("MFCNet", "ResNet-34 encoder with spatial and channel context on the skip connections"),
    "sam_urim": ("SAM + URIM", "fuses contrast phases, then corrects uncertain regions (not Segment Anything)"),
    "mednext": ("MedNeXt", "a U-Net of depthwise convolutions; not made for livers, to compare with"),
}


def _main(key: str) -> Variant:
    return next(row for row in VARIANTS if row.paper.key == key)


def all_trainers() -> str:
    """Every trainer with its paper's page, which says what it reproduces; for ``docs/reference/variants.md``."""
    lines = ["| trainer (`-tr`) | `livseg plan -m` | parameters | network |", "|---|---|---|---|"]
    for row in VARIANTS:
        page = f"[{NETWORKS[row.paper.key][0]}](../{row.paper.page.removeprefix('docs/')})"
        lines.append(f"| `{row.trainer}` | `{row.name}` | {_parameters(row)} | {page} |")
    return "\n".join(lines)


def main_trainers() -> str:
    """One line per paper: its network, the idea and the trainer."""
    lines = ["| Network | Main idea | Trainer |", "|---|---|---|"]
    for key in dict.fromkeys(row.paper.key for row in VARIANTS if not row.paper.rival):
        name, idea = NETWORKS[key]
        year = re.findall(r"\b(?:19|20)\d\d\b", _main(key).paper.citation)[-1]
        lines.append(f"| [{name}]({_main(key).paper.page}), {year} | {idea} | `{_main(key).trainer}` |")
    return "\n".join(lines)


def citations() -> str:
    """What to cite for each network."""
    lines = ["| network | cite |", "|---|---|"]
    lines += [f"| {name} | {_main(key).paper.citation} |" for key, (name, _) in NETWORKS.items()]
    return "\n".join(lines)


# --- docs/reference/printed_rows.md: what reproduces each printed row ------------------------------------------------

QUOTED = "others' result on the LiTS server"  # of a row that the paper's authors did not train
_MPU_AND_U = ("mpunet", "mpunet", "mpunet-unet", "mpunet-unet")  # training and validation of each
REPRODUCED_BY = {  # of every printed table, in the order of its rows: variant, nnU-Net's trainer, or QUOTED
    "dpcnet-1": (
        *("dpcnet-unet", "dpcnet-semcor-avg", "dpcnet-semcor-max", "dpcnet-semcor"),
        *("dpcnet-spacor-avg", "dpcnet-spacor-max", "dpcnet-plain"),
    ),
    "dpcnet-2": ("dpcnet-unet", "dpcnet-spacor", "dpcnet-semcor", "dpcnet-plain", "dpcnet-pfe", "dpcnet"),
    "dpcnet-3": ("dpcnet-ce", "dpcnet-dice", "dpcnet-plain"),
    "dpcnet-4": ("dpcnet-unet", "dpcnet-ag", "dpcnet-daf", "dpcnet-semcor-first", "dpcnet-plain"),
    "dpcnet-5": (*[QUOTED] * 5, "nnUNetTrainer", "dpcnet"),
    "sfan-1": ("sfan", QUOTED),
    "mfcnet-1": (
        *("mfcnet-unet", "mfcnet-attention-unet", "mfcnet-r2unet", "mfcnet-nested-unet", "mfcnet-backbone"),
        *("mfcnet-senet", "mfcnet-spatial", "mfcnet-danet", "mfcnet-csnet", "mfcnet"),
    ),
    "mpunet-3": _MPU_AND_U,
    "mpunet-7": _MPU_AND_U,
    "mpunet-8": ("mpunet",) * 20,
    "mpunet-9": ("mpunet",),
    "sam-urim-1": (
        *("sam-urim-mc-fcn", "sam-urim-mw-unet", "sam-urim-pa-resseg", "sam-urim"),
        *("sam-urim-ilf", "sam-urim-dlf", "sam-urim-mw", "sam-urim-pa", "sam-urim"),
    ),
    "sam-urim-2": ("sam-urim-mc-fcn", "sam-urim-mw-unet", "sam-urim-pa-resseg", "sam-urim"),
    "sam-urim-3": ("sam-urim-single", "sam-urim-add", "sam-urim-no-urim", "sam-urim"),
}
FIGURES = (  # of SFAN's Figs. 3 and 4, which are bars without numbers
    ("SFAN (arXiv:1911.00282), Figs. 3 and 4", "SFAN", "sfan"),
    ("SFAN (arXiv:1911.00282), Figs. 3 and 4", "U-Net", "sfan-unet"),
    ("SFAN (arXiv:1911.00282), Figs. 3 and 4", "DeepLabv3", "sfan-deeplabv3"),
)


def reproduced_rows() -> list[tuple[str, str, str]]:
    """Source, printed row and what reproduces it, of all tables; a table of cases is one row."""
    found = []
    for table in PRINTED.values():
        names = [row[0] for row in table.rows]
        rows = list(zip(names, REPRODUCED_BY[table.name], strict=True))
        if table.per_case:
            rows = [(f"all {len(rows)} cases", rows[0][1])]
        found += [(table.source, name, by) for name, by in rows]
    return found + list(FIGURES)


def printed_rows() -> str:
    """Every printed row with its trainer."""
    trainers = {row.name: row.trainer for row in VARIANTS} | {"nnUNetTrainer": "nnUNetTrainer"}
    lines = ["| table | row | trainer (`-tr`) |", "|---|---|---|"]
    last = ""
    for source, name, by in reproduced_rows():
        trainer = f"`{trainers[by]}`" if by in trainers else by
        lines.append(f"| {source if source != last else ''} | {name} | {trainer} |")
        last = source
    return "\n".join(lines)


def printed_rows_count() -> str:
    """How many there are, and how many have a trainer."""
    rows = reproduced_rows()
    quoted = sum(by == QUOTED for *_, by in rows)
    return (
        f"{len(rows)} rows: {len(rows) - quoted} have a trainer, {quoted} are results of others that the papers quote."
    )


COMMAND_PAGES = {  # where a command is explained at length
    "data": ("check", "convert", "dicom"),
    "phases": ("align",),
    "phantom": ("phantom",),
    "papers/index": ("list",),
    "training": ("plan",),
    "your_network": ("check-net",),
    "studies": ("study",),
    "segment": ("segment",),
    "attention": ("attention",),
    "export": ("export",),
    "postprocessing": ("postprocess",),
    "multi_scale": ("predict",),
    "two_stage": ("two-stage",),
    "evaluation": ("evaluate",),
    "compare": ("compare",),
    "evidence/performance": ("benchmark",),
    "get-started/demo": ("demo",),
    "troubleshooting": ("doctor",),
    "get-started/install": ("env",),
}


def all_commands() -> str:
    """Every command with its summary and its guide, by step of the work; for ``docs/reference/commands.md``."""
    pages = {command: page for page, names in COMMAND_PAGES.items() for command in names}
    assert sorted(pages) == commands()
    lines = ["| step | command | what it does |", "|---|---|---|"]
    for step in dispatch.STEPS:
        for command in dispatch.commands_of(step):
            lines.append(f"| {step} | [`livseg {command}`](../{pages[command]}.md) | {dispatch.summary(command)} |")
            step = ""
    return "\n".join(lines)


# --- the pages of the commands, which only the site has (docs/conf.py) ------------------------------------------------


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def command_page(command: str) -> str:
    """What a command does, its usage, and a table of arguments for it and for each of its steps."""
    lines = [f"# livseg {command}"]
    for parser in dispatch.all_parsers(dispatch.parser_of(command)):
        if parser.prog != f"livseg {command}":
            lines += ["", f"## {parser.prog}"]
        formatter = argparse.HelpFormatter(parser.prog, width=100)
        formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
        lines += ["", "```text", f"{formatter.format_help()}\n{parser.description or ''}".strip(), "```", ""]
        lines += ["| argument | meaning |", "|---|---|"]
        for action in parser._actions:
            name = action.metavar or "\\|".join(map(str, action.choices or ())) or action.dest.upper()
            shown = " ".join(name) if isinstance(name, tuple) else name
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            value = "" if action.option_strings and action.nargs == 0 else f"`{shown}`"
            lines.append(f"| {' '.join(part for part in (flags, value) if part)} | {_cell(action.help or '')} |")
    return "\n".join(lines) + "\n"


# --- docs/evidence/results.md, from what benchmarks/real_tumors.py measured -------------------------------------------

RESULTS = {"": "results.json", "short ": "results_short.json"}  # by what the names of their tables begin with


def tumors_budget(found: dict[str, Any]) -> str:
    """How long was trained, on what, and with which versions."""
    budget, patients = found["budget"], len(found["jobs"][0]["dice_of_patient"])
    steps = budget["epochs"] * budget["iterations"]
    size = f"{budget['patch']} x {budget['patch']}"
    return (
        f"**A small budget: 2D, {steps:,} training steps** ({budget['epochs']} epochs of {budget['iterations']};"
        f" nnU-Net's own training has 250,000) on one CPU core. A step has {budget['batch']} patches of {size} pixels"
        f" of {budget['spacing_mm']:g} mm, cut from the liver's box with a margin of {budget['margin_mm']:g} mm. The"
        f" {patients} scored patients are those of {len(found['folds'])} of {budget['folds']} folds; each is predicted"
        " by the fold that was not trained on it. "
        + "; ".join(", ".join(f"{name} {of}" for name, of in machine.items()) for machine in found["machines"])
        + "."
    )


def tumors_table(found: dict[str, Any]) -> str:
    """One line per method: settings, Dice of tumors and liver, and the difference to nnU-Net."""
    lines = [
        "| training | optimizer, loss | tumor Dice per patient [%], 95% CI | all voxels together |"
        " minus nnU-Net, 95% CI | p (Holm) | patients better / worse | liver Dice [%] |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for job in found["jobs"]:
        tumor, liver, against = job["scores"]["tumor"], job["scores"]["liver"], job["against"]
        cells = [
            _method(job),
            _training_of(job["livseg"]),
            f"{_percent(tumor['mean'])} ({_interval(tumor['ci95'])})",
            _percent(tumor["global"]),
            f"{_percent(against['difference'], '+')} ({_interval(against['ci95'], '+')})" if against else "",
            ("< 0.001" if against["p_holm"] < 0.001 else f"{against['p_holm']:.3f}") if against else "",
            f"{against['better']} / {against['worse']}" if against else "",
            f"{_percent(liver['mean'])} ({_interval(liver['ci95'])})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lesions_table(found: dict[str, Any]) -> str:
    """One line per method: lesions found by their longest diameter, false ones, and cost."""
    jobs = found["jobs"]
    strata = [f"found, {row['stratum']} (of {row['n']})" for row in jobs[0]["lesions"]["strata"]]
    lines = [
        f"| training | {' | '.join(strata)} | false lesions per patient | parameters | trainings, CPU s |",
        f"|---{'|---:' * (len(strata) + 3)}|",
    ]
    for job in jobs:
        seconds = sum(step["cpu_s"] for step in job["trainings"])
        cells = [
            _method(job),
            *(str(row["found"]) for row in job["lesions"]["strata"]),
            f"{job['lesions']['false_per_case']:.1f}",
            f"{job['parameters'] / 1e6:.2f}M",
            f"{seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _measured(file: str, table: Callable[[dict[str, Any]], str]) -> str:
    return table(json.loads((PROJECT / "docs" / "evidence" / file).read_text()))


def _method(job: dict[str, Any]) -> str:
    return f"`{job['trainer']}`, {job['recipe']}" + (", again" if job["repeat"] else "")


def _training_of(ours: dict[str, Any] | None) -> str:
    if ours is None:
        return "nnU-Net's own"
    recipe = ours["recipe"]
    return f"{recipe['optimizer']} {recipe['learning_rate']:g}, {recipe['schedule']}; `{ours['loss']}`"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}"


def _interval(ci95: list[float], sign: str = "") -> str:
    return " to ".join(_percent(value, sign) for value in ci95)


# --- docs/starter_model.md, from what benchmarks/starter_model.py measured --------------------------------------------


def starter_patients(found: dict[str, Any]) -> str:
    """One line per patient that the training has not seen, and their mean."""
    lines = [
        "| patient | fold | liver with tumors, Dice | tumor, Dice | tumor, ml | segmented, ml |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, dice in found["dice_of_patient"].items():
        ml = found["tumor_ml_of_patient"][name]
        tumor = "" if dice["tumor"] is None else f"{dice['tumor']:.2f}"
        row = (f"`{name}`", found["fold_of_patient"][name], f"{dice['liver']:.2f}", tumor)
        lines.append(f"| {' | '.join(row)} | {ml['reference']:.1f} | {ml['predicted']:.1f} |")
    means = [
        f"{score['mean']:.2f} ({' to '.join(f'{end:.2f}' for end in score['ci95'])})"
        for score in found["scores"].values()
    ]
    lines.append(f"| mean (95 % interval) | | {' | '.join(means)} | | |")
    together = [f"{score['global']:.2f}" for score in found["scores"].values()]
    lines.append(f"| all voxels together | | {' | '.join(together)} | | |")
    return "\n".join(lines)


def starter_lesions(found: dict[str, Any]) -> str:
    """Lesions of the same patients, found and invented, by longest diameter."""
    lines = ["| longest diameter | tumors | found | invented |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row['stratum']} | {row['n']} | {row['found']} | {row['false']} |" for row in found["lesions"]["strata"]
    ]
    return "\n".join(lines)


# --- docs/evidence/training_cost.md, from stored counts and one measured speed ----------------------------------------


def count_all() -> None:
    """Count a training step of every row into the package's file, which ``livseg list --cost`` reads."""
    rows = {STOCK: None} | {row.name: row for row in VARIANTS}
    counts = {name: asdict(count_training(row)) for name, row in rows.items()}
    write_json(COUNTS, counts)


def _speed() -> MachineSpeed:
    return MachineSpeed(**json.loads((PROJECT / "docs" / "evidence" / "training_speed.json").read_text()))


def cost_machine() -> str:
    """The machine that the hours are for."""
    return f"{_speed()}."


def cost_table() -> str:
    """Cost of training of every row on that machine."""
    rows = {row.name: f"`{row.name}`" for row in VARIANTS}
    lines = [
        "| network | dimensions | operations of a step | memory | an epoch | 1000 epochs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, count in stored_counts().items():
        cost = cost_on(_speed(), count)
        cells = [rows.get(name, name), f"{count.dim}D", f"{count.step_gflop:,} G"]
        cells += [f"{count.memory_mib / 1024:.1f} GiB", f"{cost['epoch_s']:,.0f} s", f"{cost['hours']:,.0f} h"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- docs/evidence/segmentation.md, from what benchmarks/fast_lane.py measured ----------------------------------------


def fast_lane(path: Path = PROJECT / "docs" / "evidence" / "fast_lane.json") -> str:
    """Time and memory of every way to segment, projected minutes at full width, and labels that change."""
    if not path.exists():
        return f"Not measured yet: there is no `{path.name}`."
    found = json.loads(path.read_text())
    rows = {tuple(key.split(" | ")): row for key, row in found["rows"].items()}
    machine = found["machine"]
    parts = [
        f"{machine['name']}, threads: {machine['threads']}, torch {machine['torch']}.",
        _measured_ways({key: row for key, row in rows.items() if key[0] == "quarter"}),
        _projected_minutes(rows),
    ]
    if starter := {key: row for key, row in rows.items() if key[0] == "starter"}:
        parts.append(_labels_that_change(starter))
    return "\n\n".join(parts)


def _measured_ways(rows: dict[tuple[str, ...], dict[str, Any]]) -> str:
    """Whole commands with the narrow network."""
    lines = [
        "| a quarter of DPC-Net's width | slices | seconds | of which network | resampling back | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (_, slices, way), row in rows.items():
        stages = [row["stages"][name] if "stages" in row else "" for name in ("network", "resample back")]
        cells = [f"`{way}`", slices, f"{row['seconds']:,.0f}", *map(str, stages), f"{row['peak_gib']:.1f} GiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _projected_minutes(rows: dict[tuple[str, ...], dict[str, Any]]) -> str:
    """Patches of each way, and the network's minutes at full width by the time of some patches."""
    seconds = {engine: row["median"] for (kind, engine, *_), row in rows.items() if kind == "full"}
    passes: dict[str, dict[str, int]] = {}
    for slices, row in ((slices, row) for (kind, slices, *_), row in rows.items() if kind == "passes"):
        same = next((known for known in passes if passes[known] == row), None)  # as many voxels of the network
        passes[f"{same} and {slices}" if same else slices] = passes.pop(same) if same else row
    said = ", ".join(f"{number:.1f} s in {engine}" for engine, number in seconds.items())
    lines = [
        "Projected: the network's time alone, which is the number of patches (with mirrored ones) times the time of"
        f" one. A patch at full width takes {said} (median of {len(rows['full', 'torch']['all'])}).",
        "",
        f"| full width, projected | {' | '.join(f'{n} slices: patches | minutes' for n in passes)} |",
        f"|---|{'---:|---:|' * len(passes)}",
    ]
    for way in next(iter(passes.values())):
        engine = next((name for name in seconds if name in way.split()), "torch")
        if "--engine" in way and engine == "torch":
            continue  # not measured there
        cells = [f"{row[way]:,} | {row[way] * seconds[engine] / 60:,.1f}" for row in passes.values()]
        lines.append(f"| `{way}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _labels_that_change(rows: dict[tuple[str, ...], dict[str, Any]]) -> str:
    """The starter model on a CT with a reference."""
    lines = [
        "| starter model | seconds | labels equal to `standard` | liver Dice | tumor Dice |",
        "|---|---:|---:|---:|---:|",
    ]
    for (_, way), row in rows.items():
        scores = [_percent(row[name]) if row.get(name) is not None else "" for name in ("liver", "tumor")]
        lines.append(f"| `{way}` | {row['seconds']:,.0f} | {100 * row['equal']:.3f} % | {' | '.join(scores)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "systems": main_trainers,
    "citations": citations,
    "commands": all_commands,
    "variants": all_trainers,
    "printed rows": printed_rows,
    "printed rows count": printed_rows_count,
    **{
        f"{length}{name}": partial(_measured, file, table)
        for length, file in RESULTS.items()
        for name, table in {"tumors budget": tumors_budget, "tumors": tumors_table, "lesions": lesions_table}.items()
    },
    "starter patients": partial(_measured, "starter.json", starter_patients),
    "starter lesions": partial(_measured, "starter.json", starter_lesions),
    "cost machine": cost_machine,
    "cost": cost_table,
    "fast lane": fast_lane,
    "fast lane amx": partial(fast_lane, PROJECT / "docs" / "evidence" / "fast_lane_amx.json"),
    **{f"variants {key}": (lambda key=key: rows_of(key)) for key in dict.fromkeys(r.paper.key for r in VARIANTS)},
}


def filled(text: str) -> str:
    """``text`` with every generated table renewed."""

    def fill(found: re.Match) -> str:
        return f"<!-- generated: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (.+?) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    if "--counts" in sys.argv:
        count_all()
    for page in PAGES:
        text = page.read_text()
        if filled(text) != text:
            page.write_text(filled(text))
            print("renewed", page.relative_to(PROJECT))
