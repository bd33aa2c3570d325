"""What the system is for: tumors that only the arterial phase shows are found with both phases, and not with one."""

import numpy as np
import pytest
import torch

from nnunet_livseg.data.phantom import make_case
from nnunet_livseg.variants import find_variant

from .small import build

STEPS, BATCH = 300, 6
TUMOR = 2


def case(seed):
    """Slices of a phantom whose tumors the portal venous phase does not show: image ``(Z, 2, Y, X)``, labels."""
    made = make_case(
        seed,
        size=(20, 64, 64),
        phases=2,
        tumors=(2, 3),
        tumor_diameter_mm=(35.0, 60.0),
        arterial_only=1.0,
    )
    window = np.clip((made.image.astype(np.float32) - 55) / 125, -1, 1)  # [-70, 180] HU
    return torch.from_numpy(window).transpose(0, 1), torch.from_numpy(made.label.astype(np.int64))


def train(name, images, labels):
    """A short training as of the preset ``small``: Adam, CE of both outputs; half of a batch shows a tumor."""
    torch.manual_seed(0)
    options = dict(find_variant(name).options)
    network = build(widths=(8, 16, 32, 48), decoder_features=32, deep_supervision=True, **options)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    with_tumor = (labels == TUMOR).flatten(1).any(1).nonzero().flatten()
    for _ in range(STEPS):
        half = with_tumor[torch.randint(len(with_tumor), (BATCH // 2,))]
        chosen = torch.cat([half, torch.randint(len(images), (BATCH - BATCH // 2,))])
        outputs = network(images[chosen])
        loss = sum(torch.nn.functional.cross_entropy(output, labels[chosen]) for output in outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.decoder.deep_supervision = False
    return network.eval()


def tumor_dice(network, images, labels):
    with torch.no_grad():
        predicted = torch.cat([network(part).argmax(1) for part in images.split(20)]) == TUMOR
    reference = labels == TUMOR
    return (2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())).item()


@pytest.mark.slow
def test_arterial_tumors_are_found_with_two_phases_only():
    seen = [case(seed) for seed in range(8)]
    unseen = [case(seed) for seed in (100, 101)]
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    test_images, test_labels = (torch.cat(parts) for parts in zip(*unseen, strict=True))
    both = tumor_dice(train("sam-urim", images, labels), test_images, test_labels)
    one = tumor_dice(train("sam-urim-single-urim", images, labels), test_images, test_labels)
    print(f"tumor Dice: two phases {both:.2f}, one phase {one:.2f}")
    assert both > 0.6
    assert one < 0.2
