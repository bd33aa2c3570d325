"""show all variants: trainers, papers, the table rows that they reproduce, parameters, cost of training

Parameters are those of the network at nnU-Net's geometry for LiTS (3d_fullres; 2d if a network is 2D only), with one
input channel and three classes.

--cost shows what training at this geometry costs with batch 2: seconds per epoch and hours for nnU-Net's 1000 epochs on
this machine, and memory. Operations and memory were counted. The machine's speed is measured now, in a few training
steps of nnU-Net's network. livseg benchmark measures a single network.

examples:
  livseg list --paper dpcnet
  livseg list --cost
"""

import argparse

from nnunet_livseg.cli.shared_options import STANDARD_OUTPUT, add, put_json

STEP = "plan and train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``livseg list``."""
    from nnunet_livseg.variants import VARIANTS

    papers = dict.fromkeys(row.paper.key for row in VARIANTS)
    add(parser, "json", says="text")
    parser.add_argument("--paper", metavar="PAPER", help=f"show one paper: {', '.join(papers)} (default: all)")
    parser.add_argument("--no-parameters", action="store_true", help="do not count parameters, to answer at once")
    parser.add_argument("--cost", action="store_true", help="show time and memory of a training on this machine")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from nnunet_livseg.core.errors import UserError
    from nnunet_livseg.core.names import did_you_mean
    from nnunet_livseg.variants import VARIANTS

    papers = list(dict.fromkeys(row.paper.key for row in VARIANTS))
    if args.paper is not None and args.paper not in papers:
        raise UserError(
            f"there is no paper {args.paper!r}.{did_you_mean(args.paper, papers)}\n  Papers: {', '.join(papers)}"
        )
    rows = [row for row in VARIANTS if args.paper in (None, row.paper.key)]
    table = [_entry(row, with_parameters=not (args.no_parameters or args.cost)) for row in rows]
    speed = _add_cost(table) if args.cost else ""
    if args.json:
        put_json(args.json, table)
    if args.json == STANDARD_OUTPUT:
        return
    if args.cost:
        _show_cost(table, speed)
        return
    for key in dict.fromkeys(row.paper.key for row in rows):
        print(next(row.paper.citation for row in rows if row.paper.key == key))
        for entry in table:
            if entry["paper"] == key:
                count = "" if entry["parameters"] is None else f"{entry['parameters'] / 1e6:7.2f}M"
                dims = "/".join(f"{dim}D" for dim in entry["dims"])
                needs = f" (needs the extra {entry['extra']})" if entry["extra"] else ""
                print(f"  {entry['name']:<22}{entry['trainer']:<28}{count:<10}{dims:<7}{entry['reproduces']}{needs}")
        print()
    print("train:  nnUNetv2_train DATASET 3d_fullres 0 -tr TRAINER        plan: livseg plan -d DATASET -m NAME")


def _add_cost(table: list[dict]) -> str:
    """Put the cost of training into every entry; returns what was measured."""
    from nnunet_livseg.diagnostics.training_cost import cost_on, measure_speed, stored_counts

    speed, counts = measure_speed(), stored_counts()
    for entry in table:
        entry["cost"] = cost_on(speed, counts[entry["name"]])
    return str(speed)


def _show_cost(table: list[dict], speed: str) -> None:
    print(f"{'':<24}{'a step':>12}{'memory':>12}{'an epoch':>12}{'1000 epochs':>14}")
    for entry in table:
        cost = entry["cost"]
        operations, memory = f"{cost['step_gflop']:,} G", f"{cost['memory_mib'] / 1024:.1f} GiB"
        epoch, hours = f"{cost['epoch_s']:,.0f} s", f"{cost['hours']:,.0f} h"
        print(f"{entry['name']:<24}{operations:>12}{memory:>12}{epoch:>12}{hours:>14}")
    print(f"\nmeasured: {speed}")
    print("counted: operations of a step of 2 patches of 128x128x128 (2D: 512x512), and its memory in float32")
    print("accurate within a factor of 2 if nothing else runs (docs/evidence/training_cost.md)")


def _entry(row, *, with_parameters: bool) -> dict:
    from nnunet_livseg.variants import is_installed

    parameters = None
    if with_parameters and is_installed(row):
        from nnunet_livseg.reference_networks import count_parameters

        parameters = count_parameters(row)
    return {
        "name": row.name,
        "trainer": row.trainer,
        "paper": row.paper.key,
        "citation": row.paper.citation,
        "reproduces": row.reproduces,
        "dims": list(row.dims),
        "presets": ["default", *row.presets],
        "loss": row.loss,
        "network": row.network,
        "options": dict(row.options),
        "recipe": row.recipe.to_dict(),
        "parameters": parameters,
        "note": row.note,
        "extra": row.extra,
    }
