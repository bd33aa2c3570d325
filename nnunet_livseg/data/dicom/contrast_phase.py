"""Which contrast phase a series shows: guessed from its description, else from its timing, always with the reason."""

import re

NATIVE, ARTERIAL, PORTAL, DELAYED = "native", "arterial", "portal venous", "delayed"
_AFTER_ARTERIAL_S = (20.0, 120.0)  # an undescribed series so long after another contrast series is portal venous

# Words of the phases, in the order in which they are tried: "late arterial" is arterial, "late" alone is delayed.
_WORDS = (
    (NATIVE, r"native?|nativ[oa]?|non?[- ]?contrast|without|w/o|wo|unenhanced|pre[- ]?contrast|sans|sin|ohne|ncct"),
    (ARTERIAL, r"(late[- ]?|early[- ]?|hepatic[- ]?)?art(\.|erial|erielle|eriell|eriosa|erialny|eriale)?|hap"),
    (PORTAL, r"port(o|al|ale)?([- ]?ven(ous|[oö]s|oso|euse|osa)?)?|pv(p|ph)?|hvp|ven(ous|[oö]s|oso|euse|osa)?|vp"),
    (DELAYED, r"delay(ed)?|late|equil(ibrium)?|tardi(f|ve|va|o)?|sp[aä]t|excretory"),
)
_PATTERNS = [(phase, re.compile(rf"(?<![a-z])({words})(?![a-z])", re.IGNORECASE)) for phase, words in _WORDS]
# Seconds after the injection began
_TIMES_S = ((ARTERIAL, 15, 45), (PORTAL, 55, 100), (DELAYED, 150, 900))


def from_description(*descriptions: str) -> tuple[str, str]:
    """Phase and reason from the first description that names one phase; empty if none does."""
    for description in descriptions:
        named = {phase: match[0] for phase, pattern in _PATTERNS if (match := pattern.search(description))}
        if ARTERIAL in named and DELAYED in named and "late" in named[ARTERIAL].lower():
            del named[DELAYED]
        if len(named) == 1:
            phase, word = next(iter(named.items()))
            return phase, f"'{word}' in its description"
    return "", ""


def from_injection(delay_s: float | None) -> tuple[str, str]:
    """Phase and reason from the seconds between injection and acquisition."""
    for phase, first, last in _TIMES_S:
        if delay_s is not None and first <= delay_s <= last:
            return phase, f"{delay_s:.0f} s after the injection began"
    return "", ""


def from_order(times_s: list[float | None]) -> list[tuple[str, str]]:
    """Phases of a study's contrast series without other evidence, from when each was acquired (seconds of the day)."""
    known = sorted({time for time in times_s if time is not None})
    guesses = dict.fromkeys(times_s, ("", ""))
    if len(known) >= 2 and _AFTER_ARTERIAL_S[0] <= known[1] - known[0] <= _AFTER_ARTERIAL_S[1]:
        guesses[known[0]] = ARTERIAL, "first of the contrast series"
        guesses[known[1]] = PORTAL, f"{known[1] - known[0]:.0f} s after the first contrast series"
        for time in known[2:]:
            guesses[time] = DELAYED, f"{time - known[0]:.0f} s after the first contrast series"
    return [guesses[time] for time in times_s]


def seconds(time: str) -> float | None:
    """Seconds of the day of a DICOM time ``HHMMSS.FFFFFF`` or date-time; None if it is neither."""
    match = re.fullmatch(r"(?:\d{8})?(\d{2})(\d{2})(\d{2}(?:\.\d+)?)(?:[+-]\d{4})?", time.strip())
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None
