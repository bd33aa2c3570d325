"""Which values of a label map are the liver, its tumors and the rest; nothing else reads the names of labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nnunet_livseg.core.errors import UserError

LIVER, TUMOR = "liver", "tumor"
LIVER_AND_TUMOR = {"background": 0, LIVER: 1, TUMOR: 2}  # the labels of every dataset that is written here
NO_CLASS = ("background", "ignore")  # labels that nnU-Net trains no output for
ROUNDING = 1e-3  # float label maps that a header scales come back as 0.99999
WHITE = 255  # what masks that were saved as pictures hold in place of 1


@dataclass(frozen=True)
class Structures:
    """What the values of a label map mean.

    Args:
        values: Label values of each structure; the liver includes the tumor's, the tumor all kinds of tumor.
        known: Every value that may occur (``None``: any value; what is no structure counts as background).
        ignore: Value of reference voxels that count neither way, as in nnU-Net.
        source: What says so, for messages.
        references: Values of the references to the predictions' values, if references use others.
        only_references: Whether references with any other value are rejected; else it becomes background.
    """

    values: Mapping[str, tuple[int, ...]]
    known: frozenset[int] | None = None
    ignore: int | None = None
    source: str = field(default="", compare=False)
    references: Mapping[int, int] = field(default_factory=dict)
    only_references: bool = False

    @property
    def healthy(self) -> tuple[int, ...]:
        """Values of the liver outside its tumors."""
        return tuple(v for v in self.values.get(LIVER, ()) if v not in self.values.get(TUMOR, ()))

    def role_of(self, value: int) -> str:
        """``liver`` outside of tumors, ``tumor``, or neither, ``""``."""
        return next((name for name in (TUMOR, LIVER) if value in self.values.get(name, ())), "")

    def of_references(self) -> "Structures":
        """The same in the values that the references use."""
        if not self.references:
            return self
        own = {
            name: tuple(theirs for theirs, ours in self.references.items() if ours in values)
            for name, values in self.values.items()
        }
        return Structures(own, source=self.source)

    def as_dict(self) -> dict:
        known = None if self.known is None else sorted(self.known)
        content = {"values": {k: list(v) for k, v in self.values.items()}, "known": known, "ignore": self.ignore}
        return content | ({"references": {str(k): v for k, v in self.references.items()}} if self.references else {})

    @classmethod
    def from_dict(cls, content: Mapping) -> "Structures":
        known = content["known"]
        values = {name: tuple(v) for name, v in content["values"].items()}
        references = {int(k): v for k, v in content.get("references", {}).items()}
        return cls(values, None if known is None else frozenset(known), content["ignore"], references=references)


def structures_from_values(
    liver: Iterable[int] = (), tumor: Iterable[int] = (), *, base: Structures | None = None
) -> Structures:
    """Structures from label values that a person names; ``base`` (a dataset.json's) still says what may occur.

    Raises:
        UserError: No value at all, background named as a structure, no value of the liver outside of tumors, or a value
            that ``base`` does not know.
    """
    liver, tumor = tuple(liver), tuple(tumor)
    if not liver and not tumor:
        raise UserError("no label values for liver or tumor: name at least one, such as --liver 1 --tumor 2")
    if any(value <= 0 for value in liver + tumor):
        raise UserError(f"label values of liver {liver} and tumor {tumor} must be above 0, which is the background")
    if liver and set(liver) <= set(tumor):
        raise UserError(
            f"the label values of the liver {liver} are all tumor {tumor} as well, so none is left for the liver around"
            " it.\n  Give the tumor its own values, or omit one of the two."
        )
    values = {LIVER: tuple(sorted({*liver, *tumor}))} if liver else {}
    if tumor:
        values[TUMOR] = tuple(sorted(set(tumor)))
    known, ignore = (base.known, base.ignore) if base else (None, None)
    unknown = sorted({*liver, *tumor} - known) if known is not None else []
    if unknown:
        raise UserError(f"{base.source} has no label {unknown[0]}, only {', '.join(map(str, sorted(known)))}.")
    return Structures(values, known, ignore, "given label values")


def structures_from_labels(labels: Mapping, *, source: str = "dataset.json") -> Structures:
    """Structures from the ``labels`` of a ``dataset.json``, regions included (and from v1's, ``{"1": "liver"}``).

    Names of tumors (tumour, lesion, cancer, HCC, ...) become ``tumor``; the liver takes in the tumor's values; every
    other label, and each of several kinds of tumor, is a structure of its own as well.

    Raises:
        UserError: The labels cannot be understood.
    """
    values, role = _values_by_name(labels, source), roles(labels, source=source)
    by_role = {wanted: [name for name in role if role[name] == wanted] for wanted in (LIVER, TUMOR)}
    tumor = _joined(values[name] for name in by_role[TUMOR])
    liver = _joined([tumor, *(values[name] for name in by_role[LIVER])]) if by_role[LIVER] else ()
    kinds = by_role[TUMOR] if len(by_role[TUMOR]) > 1 else []
    others = [name for name in role if name in kinds or not role[name]]
    found = {LIVER: liver, TUMOR: tumor} | {name: values[name] for name in others if name not in (LIVER, TUMOR)}
    return replace(declared(labels, source=source), values={name: kept for name, kept in found.items() if kept})


def declared(labels: Mapping, *, source: str = "dataset.json") -> Structures:
    """Which values ``labels`` declare, whatever they mean: no structures yet.

    Raises:
        UserError: The labels cannot be understood.
    """
    values = _values_by_name(labels, source)
    known = frozenset({0}.union(*(found for name, found in values.items() if name != "ignore")))
    return Structures({}, known, next(iter(values.get("ignore", ())), None), source)


def _joined(values: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sorted({v for found in values for v in found if v}))


def _values_by_name(labels: Mapping, source: str) -> dict[str, tuple[int, ...]]:
    """Values of every label; 0 alone only of the background's.

    Raises:
        UserError: There are none, or one is not a whole number from 0 on.
    """
    if not isinstance(labels, Mapping) or not labels:
        raise UserError(
            f"{source}: there is no 'labels' section, so liver and tumor cannot be identified."
            '\n  Add it, for example: "labels": {"background": 0, "liver": 1, "tumor": 2}'
        )
    if is_of_version_1(labels):
        labels = {str(name): int(value) for value, name in labels.items()}
    wrong = next((name for name, value in labels.items() if not is_label(value)), None)
    if wrong is not None:
        raise UserError(
            f"{source}: label {wrong!r} has the value {labels[wrong]!r}, which is neither an integer from 0 on nor a"
            " list of them.\n  Correct it there."
        )
    values = {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in labels.items()}
    return {name: tuple(v for v in found if v) or found[:1] for name, found in values.items()}


def is_label(value: object) -> bool:
    """Whether nnU-Net can read a label's ``value``: a whole number from 0 on, or a list of them."""
    values = value if isinstance(value, list | tuple) and value else [value]
    return all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def is_of_version_1(labels: Mapping) -> bool:
    """Whether labels map values to names, as nnU-Net v1 and the Decathlon write them."""
    return all(str(value).isdigit() and isinstance(name, str) for value, name in labels.items())


def of_both(predicted: Structures, reference: Structures) -> Structures:
    """The structures of predictions whose references have a ``dataset.json`` of their own, with the values of both.

    A model of the liver can so be scored on references of liver and tumor, or one tumor on several kinds.

    Raises:
        UserError: A value is liver, tumor or something else for one and not for the other.
    """
    for value in sorted((predicted.known & reference.known) - {0}):
        if predicted.role_of(value) != reference.role_of(value):
            said = [
                f"{one.role_of(value) or 'neither liver nor tumor'} in {one.source}" for one in (predicted, reference)
            ]
            raise UserError(
                f"the label {value} is {', but '.join(said)}: predictions and references do not mean the same.\n"
                "  Convert one of them, or correct the dataset.json that is wrong."
            )
    values = {
        name: _joined([found, reference.values.get(name, ())]) if name in (LIVER, TUMOR) else found
        for name, found in predicted.values.items()
    }
    ignore = predicted.ignore if reference.ignore is None else reference.ignore
    source = f"{predicted.source} and {reference.source}"
    return Structures(values, predicted.known | reference.known, ignore, source)


def with_other_references(predicted: Structures, reference: Structures) -> Structures:
    """Liver and tumor of predictions whose references give them other values: what both have.

    Raises:
        UserError: They have nothing in common.
    """
    common = [name for name in (LIVER, TUMOR) if name in predicted.values and name in reference.values]
    if not common:
        said = [f"{' and '.join(one.values) or 'neither'} by {one.source}" for one in (predicted, reference)]
        raise UserError(
            f"predictions and references do not share liver or tumor: {', but '.join(said)}.\n"
            "  Name the values: --liver, --tumor, --reference-liver, --reference-tumor."
        )
    values = {name: predicted.values[name] for name in common}
    of_liver = (predicted.healthy or predicted.values[LIVER])[0] if LIVER in common else 0
    of_tumor = predicted.values[TUMOR][0] if TUMOR in common else of_liver
    references = dict.fromkeys(reference.healthy, of_liver) | dict.fromkeys(reference.values.get(TUMOR, ()), of_tumor)
    ignore = None
    if reference.ignore is not None:
        ignore = 1 + max({*references.values(), *(predicted.known or ()), *(v for n in values for v in values[n])})
        references[reference.ignore] = ignore
    if reference.known is not None:
        references |= {v: 0 for v in reference.known if v not in references}
    source = f"{predicted.source} and {reference.source}"
    return Structures(values, predicted.known, ignore, source, references, reference.known is not None)


# --- names ------------------------------------------------------------------------------------------------------------


def _set(*lines: str) -> set[str]:
    return set(" ".join(lines).split())


_TUMORS = _set(
    "tumor tumors tumour tumours lesion lesions cancer cancers carcinoma carcinomas hcc icc cholangiocarcinoma crlm",
    "metastasis metastases mets neoplasm neoplasms mass masses malignancy malignancies",
)
_LIVERS = {"liver", "hepatic"}
_OF_A_LIVER = _LIVERS | _set(
    "parenchyma whole entire total full all healthy normal background organ tissue mask seg segmentation region"
)
_BOTH = {"union", "combined", "both", "merged"}
_QUALITIES = _set("primary secondary benign malignant metastatic small large viable necrotic necrosis solid cystic")
_VESSELS = _set("thrombus thrombosis vein veins vessel vessels artery arteries duct ducts cyst cysts")
_ORGANS = _set(  # a tumor with such a word is not the liver's, but "pancreatic liver metastasis" is
    "kidney kidneys renal pancreas pancreatic spleen splenic lung lungs pulmonary colon gallbladder bladder stomach",
    "gastric adrenal bone bones brain lymph node nodes prostate esophagus duodenum bowel",
)
_WITHOUT = re.compile(
    r"\b(without|excluding|excl|except|minus)\b.*|\bnon ?[a-z]+|\b(no|not) [a-z]+|\b[a-z]+ (free|negative)\b"
)
_AND = re.compile(r"[+&]|\b(?:and|with|incl|including|plus)\b")
_GLUED = re.compile(rf"\b(liver|hepatic)(?=({'|'.join(sorted(_TUMORS))})\b)")


def roles(labels: Mapping, *, source: str = "dataset.json") -> dict[str, str]:
    """What each label or region is by its name: ``liver`` (alone or with its tumors), ``tumor``, or neither, ``""``.

    In the order of ``labels``, without background and the ignore label, as nnU-Net numbers its outputs. A tumor of a
    vessel or another organ is none of the liver; ``liver_tumor`` is the liver where it holds more than the tumors.

    Raises:
        UserError: The labels cannot be understood, or a tumor holds the whole liver.
    """
    values = {name: set(found) for name, found in _values_by_name(labels, source).items() if name not in NO_CLASS}
    values = {name: found for name, found in values.items() if found != {0}}
    found = {name: _role(name) for name in values}
    tumors, livers = ({name for name in values if found[name] == role} for role in (TUMOR, LIVER))
    for name in [name for name in tumors if set(_spelled(name).split()) & _LIVERS]:
        others = [values[other] for other in tumors - {name}]
        holds_more = any(one < values[name] for one in others) and values[name] - set().union(*others)
        if holds_more and not any(values[name] < values[liver] for liver in livers):
            found[name] = LIVER
    tumor, liver = (set().union(*(values[name] for name in values if found[name] == role)) for role in (TUMOR, LIVER))
    if liver and liver <= tumor:
        held = next(name for name in values if found[name] == TUMOR and values[name] & liver)
        raise UserError(
            f"{source}: the tumor {held!r} has all values of the liver ({_listed(sorted(liver))}), so none is left for"
            " the liver around it.\n  Give the tumor its own values; a region of both is called liver_and_tumor."
        )
    return found


def role_of_name(name: str) -> str:
    """What one name says: ``liver``, ``tumor``, or neither, ``""``."""
    return _role(name)


def _role(name: str) -> str:
    parts = [set(part.split()) for part in _AND.split(_spelled(name))]
    parts = [words for words in parts if words and not words <= _QUALITIES]
    found = {_role_of_words(words) for words in parts}
    if LIVER in found:  # with whatever lies in it
        return LIVER if all(_role_of_words(words) or words <= _VESSELS for words in parts) else ""
    return found.pop() if len(found) == 1 else ""


def _spelled(name: str) -> str:
    """A name in lower-case words, ``LiverTumor_1`` as ``liver tumor``, without what it says to be without."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = " ".join(re.sub(r"[^a-z+&]+", " ", apart).split())
    return _GLUED.sub(r"\1 ", _WITHOUT.sub(" ", words))


def _role_of_words(words: set[str]) -> str:
    if not words & _TUMORS:
        return LIVER if words & _LIVERS and words <= _OF_A_LIVER else ""
    if words & _VESSELS or (words & _ORGANS and not words & _LIVERS):
        return ""
    return LIVER if words & _LIVERS and words & _BOTH else TUMOR


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


# --- voxels -----------------------------------------------------------------------------------------------------------


def mask_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Boolean mask of the voxels of ``labels (*S)`` that have one of ``values``."""
    if not values:
        return np.zeros(labels.shape, bool)
    mask = labels == values[0]
    for value in values[1:]:  # np.isin is several times slower on a whole CT
        mask |= labels == value
    return mask


def as_integers(array: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as integers, slice by slice to spare memory, and what was done to them.

    Raises:
        UserError: A value is not a whole number, is NaN, or needs more than 32 bits.
    """
    if array.dtype.kind in "iu":
        return array, ()
    labels, rounded = np.empty(array.shape, dtype=np.int32), False
    for part, into in zip(array, labels, strict=True):
        nearest = np.rint(part)
        with np.errstate(invalid="ignore"):
            whole = (np.abs(part - nearest) <= ROUNDING) & (np.abs(part) < 2**31)
        if not whole.all():
            raise UserError(
                f"{name} contains the value {part[~whole][0]:.4g}, which is not a whole number: it was interpolated, or"
                " contains probabilities.\n  Labels are never interpolated: resample them with nearest neighbor, or"
                " give the original label map."
            )
        rounded = rounded or bool((part != nearest).any())
        into[...] = nearest
    done = "label values rounded to whole numbers" if rounded else f"{name} stores its labels as {array.dtype}"
    return labels, (done,)


def in_predicted_values(labels: np.ndarray, structures: Structures) -> tuple[np.ndarray, list[str]]:
    """A reference's labels ``(*S)`` in the values of the predictions, and notes on those that become background.

    Raises:
        UserError: A value that was not declared for the references.
    """
    if not structures.references:
        return labels, []
    found = np.zeros_like(labels, dtype=np.int32)
    for value, predicted in structures.references.items():
        found[labels == value] = predicted
    foreign = (np.unique(part[~np.isin(part, [0, *structures.references])]).tolist() for part in labels)
    strange = sorted({value for part in foreign for value in part})
    if strange and structures.only_references:
        raise UserError(
            f"the reference contains the labels {strange}, but only {sorted({0, *structures.references})} are known.\n"
            "  Check that the file belongs to this dataset, or convert its values."
        )
    return found, [f"labels of the reference that count as background: {strange}"] if strange else []


def require_known(labels: np.ndarray, structures: Structures, side: str, *, may_ignore: bool = False) -> list[str]:
    """Reject undeclared labels; returns notes on those that count as background.

    Args:
        labels: Label map or a part of it, ``(z, y, x)`` or ``(y, x)``.
        structures: What its values mean.
        side: What messages call it.
        may_ignore: Whether it may hold the ignore label, as references may.

    Raises:
        UserError: A value that ``structures`` does not know, or a mask that was saved as a picture, with 255 for 1.
    """
    named = {v for values in structures.values.values() for v in values}
    allowed = structures.known if structures.known is not None else {0} | named
    expected = sorted(allowed | ({structures.ignore} - {None} if may_ignore else set()))
    foreign = (part[~np.isin(part, expected)] for part in labels)  # slice by slice: isin takes 8 bytes a voxel
    strange = sorted({value for part in foreign for value in np.unique(part).tolist()})
    if strange and structures.known is not None:
        raise UserError(
            f"the {side} contains the labels {strange}, but {structures.source or 'dataset.json'} only knows"
            f" {sorted(allowed)}.\n  Check that the file belongs to this dataset, or convert its values."
        )
    if strange and max(strange) == WHITE and not any(np.isin(part, sorted(named)).any() for part in labels):
        raise UserError(
            f"the {side} contains the labels {strange}, and none that was named ({_listed(sorted(named))}): it was"
            f" saved as a picture, with {WHITE} for white.\n  Name its values, such as --liver {WHITE}, or write it"
            " again with the named values."
        )
    return [f"labels of the {side} that count as background: {strange}"] if strange else []
