"""The outcome of a tuning as text for the terminal."""

import math

from nnunet_livseg.postprocessing.step_scores import Steps, Summary
from nnunet_livseg.postprocessing.steps import as_text
from nnunet_livseg.postprocessing.tuning_result import Tuning


def tuning_text(tuning: Tuning) -> str:
    """The steps that were tried and kept, and how far to trust them."""
    folds = f"fold{'s' * (len(tuning.folds) > 1)} {', '.join(tuning.folds)}"
    parts = [
        f"{tuning.n_cases} validation cases of {folds}",
        _aligned(_rows(tuning)),
        "Each rule is tried together with those kept above it. Dice is the mean over cases, as in nnU-Net (liver with\n"
        "its tumors). The gain is that of the mean over structures, with its 95 % interval over paired cases.",
        f"kept: {steps_text(tuning.steps)}",
        *_tumor_free(tuning.before, tuning.after),
        _trust(tuning),
        *(f"note: {note}" for note in tuning.notes),
    ]
    return "\n\n".join(parts)


def steps_text(steps: Steps) -> str:
    """Steps as they are typed, ``nothing`` for none."""
    return " ".join(map(as_text, steps)) or "nothing"


def _rows(tuning: Tuning) -> list[list[str]]:
    names = list(tuning.before.dice)
    lesions = tuning.before.tumor_free_cases is not None
    header = ["rule", *(f"Dice {name}" for name in names), *(["lesion F1", "false/case"] * lesions), "gain", "verdict"]
    rows = [header, ["(as predicted)", *_scores(tuning.before, lesions), "", ""]]
    for trial in tuning.trials:
        gain = gain_text(trial.gain, trial.gain_ci95)
        rows.append([as_text(trial.step), *_scores(trial.after, lesions), gain, trial.verdict])
    return rows


def _scores(summary: Summary, lesions: bool) -> list[str]:
    cells = [_number(value, 4) for value in summary.dice.values()]
    return cells + [_number(summary.lesion_f1, 3), _number(summary.false_lesions_per_case, 2)] * lesions


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def gain_text(gain: float, ci95: tuple[float, float]) -> str:
    """``+0.0123 [+0.0100, +0.0150]``; a gain that four digits would hide, but that decides, as ``+2e-05``."""
    if math.isnan(gain):
        return "-"
    digits = "+.0e" if 0 < abs(gain) < 5e-5 else "+.4f"
    return f"{gain:{digits}}" + ("" if math.isnan(ci95[0]) else f" [{ci95[0]:{digits}}, {ci95[1]:{digits}}]")


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _tumor_free(before: Summary, after: Summary) -> list[str]:
    if not before.tumor_free_cases:
        return []
    return [
        f"cases without a tumor that get one: {before.false_alarms} of {before.tumor_free_cases} as predicted, "
        f"{after.false_alarms} with the rules kept"
    ]


def _trust(tuning: Tuning) -> str:
    text = "Expect less on new cases: the rules were chosen and scored on the same cases, as in nnU-Net."
    if tuning.held_out is None:
        return f"{text}\nWith a second fold, the gain on held-out folds is printed here."
    held = tuning.held_out
    text += f"\nOn held-out folds, with the rules that the others choose: {gain_text(held.gain, held.gain_ci95)}"
    others = {fold: steps for fold, steps in held.steps.items() if steps != tuning.steps}
    text += "".join(f"\n  without fold {fold} they choose: {steps_text(steps)}" for fold, steps in others.items())
    if tuning.steps and not held.gain > 0:
        text += "\nThe held-out folds do not confirm the gain: do not use these rules."
    return text
