"""show all variants: trainers, papers, the table rows that they reproduce, parameters

Parameters are those of the network at nnU-Net's geometry for LiTS (3d_fullres; 2d if a network is 2D only), with one
input channel and three classes.
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
    table = [_entry(row, with_parameters=not args.no_parameters) for row in rows]
    if args.json:
        put_json(args.json, table)
    if args.json == STANDARD_OUTPUT:
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
