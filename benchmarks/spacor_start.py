"""Does DPC-Net learn tumors better when SpaCor's attention starts near 0.5? Pairs of trainings with the same seeds.

    python benchmarks/spacor_start.py WORK --seeds 0 1 2 [--fold 0] [--threads 1]

SpaCor's attention starts anywhere between 0 and 1, by the seed. WORK is the folder of ``real_tumors.py``, whose data,
plans and budget are used. Each seed is trained as it is and with a small last convolution of the attention. The same
command skips what is finished; the table is printed and written to WORK/spacor_start.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from real_tumors import DATASET, Budget, evaluated, plan_with_sampling, plans_of, train  # beside this script
from short_trainings import CONFIGURATION, Job
from workplace import Workplace

from nnunet_livseg.blocks.attention_spec import record_attention
from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import write_json
from nnunet_livseg.reference_networks import build

TRAINERS = {"as it is": "DPCNetTrainer", "near 0.5": "DPCNetMiddleStartTrainer"}
EPOCHS_SHOWN = (2, 5)  # whose training loss says how fast it learns
SLICES = 8  # on which the attention of a trained network is read


@dataclass(frozen=True)
class Pair:
    """One training of a pair."""

    start: str  # a key of TRAINERS
    seed: int

    @property
    def plans(self) -> str:
        return f"DPCNetSeed{self.seed}Plans"

    @property
    def model(self) -> str:
        return f"{TRAINERS[self.start]}__{self.plans}__{CONFIGURATION}"


def measure(work: Path, seeds: list[int], *, fold: int, threads: int) -> list[dict[str, Any]]:
    """All pairs, in ``work``; a row per training.

    Raises:
        UserError: ``work`` has no data of real_tumors.py, or a command failed.
    """
    place = Workplace.opened(work, DATASET, script="real_tumors.py")
    rows = []
    for seed in seeds:
        for start in TRAINERS:
            pair = Pair(start, seed)
            plan(place, pair)
            train(place, pair.model, TRAINERS[start], pair.plans, fold, threads)
            rows.append(outcome(place, pair, fold))
            write_json(work / "spacor_start.json", {"fold": fold, "budget": place.settings, "trainings": rows})
    return rows


def plan(place: Workplace, pair: Pair) -> None:
    """DPC-Net's plans under nnU-Net's recipe, with a seed."""
    job, budget = Job("dpcnet", "nnunet", "dice_ce"), place.settings
    plan_with_sampling(place, job, Budget(**budget | {"features": tuple(budget["features"])}))
    source = place.preprocessed / f"{plans_of(job)}.json"
    content = json.loads(source.read_text()) | {"plans_name": pair.plans}
    content["configurations"][CONFIGURATION]["livseg"]["recipe"]["seed"] = pair.seed
    write_json(place.preprocessed / f"{pair.plans}.json", content)


def outcome(place: Workplace, pair: Pair, fold: int) -> dict[str, Any]:
    """Attention after the training, how fast it learned, and the Dice of the patients it has not seen."""
    folder = place.model(pair.model) / f"fold_{fold}"
    trained = torch.load(folder / "checkpoint_final.pth", weights_only=False, map_location="cpu")
    losses = trained["logging"]["train_losses"]
    shown = [*(epoch for epoch in EPOCHS_SHOWN if epoch < len(losses)), len(losses)]
    scores = evaluated(place, pair.model, fold).summary["structures"]
    return {
        "seed": pair.seed,
        "start": pair.start,
        "attention": attention(place, pair, fold, trained["network_weights"]),
        "loss": {str(epoch): float(losses[epoch - 1]) for epoch in shown},
        "dice": {name: scores[name]["metrics"]["dice"]["mean"] for name in ("liver", "tumor")},
    }


def attention(place: Workplace, pair: Pair, fold: int, weights: dict[str, torch.Tensor]) -> list[float]:
    """Mean of SpaCor's attention of the trained network per level, over the middle slices of one unseen patient."""
    configuration = json.loads((place.preprocessed / f"{pair.plans}.json").read_text())["configurations"][CONFIGURATION]
    network = build(configuration, initialize=False)
    network.load_state_dict(weights)
    folder = place.preprocessed / configuration["data_identifier"]
    case = json.loads((place.preprocessed / "splits_final.json").read_text())[fold]["val"][0]
    data = infer_dataset_class(str(folder))(str(folder), [case]).load_case(case)[0]
    edge, middle = configuration["patch_size"][0], [n // 2 for n in data.shape[1:]]
    region = (slice(None), *(slice(max(0, at - edge // 2), at + edge // 2) for at in middle[1:]))
    shown = [one for one in network.attention_specs() if one.key == "spacor_attention"]
    found = []
    for z in range(middle[0] - SLICES // 2, middle[0] + SLICES // 2):
        picture = torch.from_numpy(data[:, z][region].astype("float32"))[None]
        missing = [edge - n for n in picture.shape[:1:-1]]
        picture = torch.nn.functional.pad(picture, (0, missing[0], 0, missing[1]), value=picture.min().item())
        found.append(
            [values.mean().item() for values in record_attention(network, picture, shown, point=(0.5, 0.5))[1]]
        )
    return [sum(column) / len(column) for column in zip(*found, strict=True)]


def table(rows: list[dict[str, Any]]) -> str:
    """A line per training."""
    epochs = list(rows[0]["loss"])
    lines = [
        f"| seed | start | {' | '.join(f'loss, epoch {epoch}' for epoch in epochs)} | tumor Dice [%] | liver Dice [%] |"
        " attention afterwards, by level |",
        f"|---:|---|{'---:|' * len(epochs)}---:|---:|---|",
    ]
    for row in rows:
        cells = [str(row["seed"]), row["start"], *(f"{row['loss'][epoch]:.3f}" for epoch in epochs)]
        cells += [f"{100 * row['dice'][name]:.1f}" for name in ("tumor", "liver")]
        lines.append(f"| {' | '.join(cells)} | {', '.join(f'{mean:.2f}' for mean in row['attention'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of real_tumors.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a pair of trainings each")
    parser.add_argument("--fold", type=int, default=0, help="that all are trained in (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of one training (default: %(default)s)")
    args = parser.parse_args()
    print(table(measure(args.work.resolve(), args.seeds, fold=args.fold, threads=args.threads)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"spacor_start: {error}")
