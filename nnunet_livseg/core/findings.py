"""What a check of a dataset or of the installation has found."""

from dataclasses import asdict, dataclass

ERROR, WARNING = "error", "warning"
_SIGNS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@dataclass(frozen=True)
class Finding:
    """One problem, or a check that passed: the fact, the consequence, the remedy.

    Args:
        severity: ``"error"``: training would fail or learn something wrong; ``"warning"``: look at it; ``"ok"``.
        kind: Short name of the rule, the same for all cases with this problem; of an installation what was looked at.
        case: The case, or ``None`` for the dataset or installation as a whole.
        message: For people; lines after the first are remedies.
    """

    severity: str
    kind: str
    case: str | None
    message: str

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """A line for people, with the remedies under it."""
        text, *remedies = self.message.split("\n")
        line = f"{_SIGNS[self.severity]}  {self.kind:<21}{text}"
        return "\n".join([line, *(f"{'':32}{remedy.strip()}" for remedy in remedies)])


def error(kind: str, message: str, case: str | None = None) -> Finding:
    """A finding that makes training fail or learn something wrong."""
    return Finding(ERROR, kind, case, message)


def warning(kind: str, message: str, case: str | None = None) -> Finding:
    """A finding to look at."""
    return Finding(WARNING, kind, case, message)
