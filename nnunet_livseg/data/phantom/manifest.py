"""``phantom.json``: which arguments a phantom dataset was made with, and which of its cases are finished."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.files import read_json, write_json

FILE_NAME = "phantom.json"
FORMAT = 1  # raise it when the same arguments give other voxels


class Manifest:
    """``phantom.json``: the arguments, and the finished cases with their rows of the case table."""

    def __init__(self, path: Path, content: dict) -> None:
        self.path = path
        self.content = content

    @classmethod
    def open(cls, folder: Path, arguments: dict, cases: int, test_cases: int) -> "Manifest":
        """Start or continue the manifest of ``folder``.

        Raises:
            UserError: The folder holds a phantom of other arguments, or more cases than asked for.
        """
        path = folder / FILE_NAME
        arguments = json.loads(json.dumps(arguments))  # tuples become lists, as they are read back
        if not path.is_file():
            manifest = cls(path, {"format": FORMAT, "arguments": arguments, "finished": {}})
            write_json(path, manifest.content)
            return manifest
        remedy = f"It is unknown which cases are finished: remove {folder} and run the command again."
        content = read_json(path, keys=("arguments", "finished"), remedy=remedy)
        _refuse_other(folder, content, arguments)
        counts = {"training": (cases, "phantom_"), "test": (test_cases, "unseen_")}
        for kind, (wanted, prefix) in counts.items():
            there = sum(name.startswith(prefix) for name in content["finished"])
            if there > wanted:
                raise UserError(
                    f"{folder} already holds {there} {kind} cases, more than the {wanted} asked for.\n"
                    f"  Ask for {there}, or choose another --out."
                )
        return cls(path, content)

    def has(self, name: str, files: Sequence[Path]) -> bool:
        """Whether the case ``name`` is recorded and its files are there."""
        return name in self.content["finished"] and all(path.is_file() for path in files)

    def add(self, name: str, rows: list[dict]) -> None:
        """Record a finished case."""
        self.content["finished"][name] = rows
        write_json(self.path, self.content)

    def rows(self, names: Sequence[str]) -> Iterator[dict]:
        """Rows of the case table."""
        for name in names:
            yield from self.content["finished"][name]


def _refuse_other(folder: Path, content: dict, arguments: dict) -> None:
    if content.get("format") != FORMAT:
        raise UserError(
            f"{folder} was made by another version of the phantom, whose cases differ.\n"
            "  Choose another --out, or remove the folder."
        )
    old = content["arguments"]
    differing = [key for key in arguments if old.get(key) != arguments[key]]
    if differing:
        listed = "; ".join(f"{key} is {old.get(key)} there and {arguments[key]} now" for key in differing)
        raise UserError(
            f"{folder} holds a phantom of other arguments: {listed}.\n"
            "  Nothing was changed. Choose another --out, or remove the folder."
        )
