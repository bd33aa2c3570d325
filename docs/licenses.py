"""The table of ``docs/reference/licenses.md``: what the installed packages say about their licenses.

In a fresh environment that has this package with the extra ``dicom``: python docs/licenses.py
"""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).resolve().parent / "reference" / "licenses.md"
OURS, EXTRAS = "nnunet-livseg", ("dicom",)
NVIDIA = re.compile(r"nvidia-|cuda-")  # only with the CUDA build of torch; one sentence of the page is about them


def installed_requirements() -> dict[str, tuple[importlib.metadata.Distribution, set[str]]]:
    """Every installed package that ours needs at run time, however indirectly, with the packages that require it."""
    found: dict[str, tuple[importlib.metadata.Distribution, set[str]]] = {}
    todo = [(requirement, OURS) for requirement in _requirements(OURS, EXTRAS)]
    while todo:
        requirement, by = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            found[name][1].add(by)
            continue
        try:
            found[name] = (importlib.metadata.distribution(name), {by})
        except importlib.metadata.PackageNotFoundError:
            continue
        todo += [(needed, name) for needed in _requirements(name, tuple(requirement.extras))]
    return dict(sorted(found.items()))


def _requirements(package: str, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for text in importlib.metadata.requires(package) or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in ("", *extras)):
            yield requirement


def license_of(distribution: importlib.metadata.Distribution) -> str:
    """License of a package: its SPDX expression, else its classifiers, else the first line of its license text."""
    described = distribution.metadata
    classified = [line for line in described.get_all("Classifier", []) if line.startswith("License ::")]
    names = [name for name in (line.split(" :: ")[-1] for line in classified) if name != "OSI Approved"]
    text = described.get("License-Expression") or ", ".join(names) or (described.get("License") or "").strip()
    return text.splitlines()[0].strip() if text else "not stated"


def table() -> str:
    """Markdown table, our own requirements first."""
    found = {name: entry for name, entry in installed_requirements().items() if not NVIDIA.match(name)}
    lines = ["| package | license | required by |", "|---|---|---|"]
    for name, (distribution, by) in sorted(found.items(), key=lambda item: (OURS not in item[1][1], item[0])):
        asked = "this package" if OURS in by else ", ".join(sorted(by))
        lines.append(f"| {name} | {license_of(distribution)} | {asked} |")
    return "\n".join(lines)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    start, end = "<!-- licenses -->\n", "<!-- end of licenses -->"
    head, rest = text.split(start)
    PAGE.write_text(f"{head}{start}{table()}\n{end}{rest.split(end)[1]}", "utf-8")
