"""Patient-wise splits in nnU-Net's format (``splits_final.json``).

nnU-Net's trainer reads ``<nnUNet_preprocessed>/DatasetXXX_Name/splits_final.json``; its planner copies the file there
from the raw dataset if none exists yet. A fold number is an index into that list; a fold that is not in it makes
nnU-Net fall back to a random split *by case*, with no more than a log line.
"""

import random
from collections.abc import Hashable, Mapping, Sequence

from nnunet_livseg.core.errors import UserError

Split = dict[str, list[str]]


def cross_validation_splits(
    patient_of: Mapping[str, str], count: int, *, stratum_of: Mapping[str, Hashable], seed: int
) -> list[Split]:
    """Cross-validation folds; all cases of a patient are in one fold.

    Args:
        patient_of: Case -> patient.
        count: Number of folds.
        stratum_of: Case -> anything by which folds should be alike, e.g. whether there is a tumor. A patient belongs to
            the largest stratum of its cases.
        seed: The same seed and cases give the same folds on every machine.

    Returns:
        One ``{"train": cases, "val": cases}`` per fold; fold sizes differ by one patient at most.

    Raises:
        UserError: Fewer than two folds, or fewer patients than folds.
    """
    patients = _shuffled_patients(patient_of, seed)
    if count < 2:
        raise UserError(f"--cv-folds {count}: cross-validation needs at least 2 (for none, train fold `all`).")
    if len(patients) < count:
        raise UserError(f"--cv-folds {count}: there are only {len(patients)} patients; ask for no more folds.")
    strata: dict[str, Hashable] = {}
    for case in sorted(patient_of):
        patient = patient_of[case]
        strata[patient] = max(strata.get(patient, stratum_of[case]), stratum_of[case])
    dealt = sorted(patients, key=lambda patient: strata[patient])  # stable: shuffled within a stratum
    fold_of = {patient: index % count for index, patient in enumerate(dealt)}
    return [_split(patient_of, lambda patient, fold=fold: fold_of[patient] == fold) for fold in range(count)]


def train_val_test_split(patient_of: Mapping[str, str], counts: Sequence[int], *, seed: int) -> tuple[Split, list[str]]:
    """One training, validation and test split of so many patients each, e.g. MPU-Net's 88, 22 and 20.

    Returns:
        The split of training and validation cases, and the test cases.

    Raises:
        UserError: The counts do not add up to the number of patients, or none is left to train or validate on.
    """
    patients = _shuffled_patients(patient_of, seed)
    train, val, _ = counts
    if min(train, val) < 1 or min(counts) < 0:
        raise UserError(f"--split {_spelled(counts)}: training and validation need at least one patient each.")
    if sum(counts) != len(patients):
        raise UserError(
            f"--split {_spelled(counts)} adds up to {sum(counts)}, but there are {len(patients)} patients"
            f" ({len(patient_of)} cases).\n  Change the numbers, or skip cases with --exclude CASE."
        )
    validation, test = set(patients[train : train + val]), set(patients[train + val :])
    kept = {case: patient for case, patient in patient_of.items() if patient not in test}
    return _split(kept, validation.__contains__), sorted(case for case in patient_of if patient_of[case] in test)


def _spelled(counts: Sequence[int]) -> str:
    return " ".join(map(str, counts))


def _shuffled_patients(patient_of: Mapping[str, str], seed: int) -> list[str]:
    patients = sorted(set(patient_of.values()))
    random.Random(seed).shuffle(patients)
    return patients


def _split(patient_of: Mapping[str, str], in_validation) -> Split:
    cases = sorted(patient_of)
    return {
        "train": [case for case in cases if not in_validation(patient_of[case])],
        "val": [case for case in cases if in_validation(patient_of[case])],
    }
