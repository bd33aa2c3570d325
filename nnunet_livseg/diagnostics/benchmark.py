"""Measure networks in turns with nnU-Net's own: parameters, FLOPs, time and memory of training and inference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_livseg.core.errors import UserError
from nnunet_livseg.core.labels import LIVER_AND_TUMOR
from nnunet_livseg.diagnostics.counted_cost import on_meta
from nnunet_livseg.diagnostics.machine import processor_name
from nnunet_livseg.inference.devices import require_device
from nnunet_livseg.losses import LOSSES, MultiOutputLoss, target_strides
from nnunet_livseg.networks.footprint import forward_flops, saved_for_backward
from nnunet_livseg.networks.outputs import TrainingOutput, nnunet_outputs
from nnunet_livseg.reference_networks import PATCH, build, channels_of, stock_configuration
from nnunet_livseg.variants import Variant

STOCK = "nnU-Net"
MIB = 2**20


@dataclass(frozen=True)
class BenchmarkSetup:
    """The conditions of a benchmark. ``patch`` in voxels (z, y, x); ``device_name`` as the maker calls it."""

    patch: tuple[int, ...]
    batch: int
    device: str
    device_name: str
    repeats: int
    threads: int
    compiled: bool
    torch: str
    features: tuple[int, ...] | None = None  # channels per stage; by default nnU-Net's

    @classmethod
    def of(
        cls,
        *,
        patch: tuple[int, ...],
        batch: int = 2,
        device: str | None = None,
        repeats: int = 5,
        threads: int | None = None,
        compiled: bool = True,
    ) -> "BenchmarkSetup":
        """Fill in the defaults of this machine.

        Raises:
            UserError: A GPU is asked for and there is none, or the patch does not fit the network's strides.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        require_device(device)
        if batch < 1 or repeats < 1:
            raise UserError(f"batch {batch}, repeats {repeats}: at least 1 of each is needed to measure anything.")
        if any(size % 32 or size < 32 for size in patch):
            raise UserError(
                f"patch {patch} does not fit: every size must be a multiple of 32, as the network halves it 5 times."
            )
        if threads:
            torch.set_num_threads(threads)
        name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
        compiled = compiled and device == "cuda"  # nnU-Net does not compile on a CPU
        return cls(patch, batch, device, name, repeats, torch.get_num_threads(), compiled, torch.__version__)

    def widths(self) -> tuple[int, ...] | None:
        """nnU-Net's channels for the reference patch; a smaller one has fewer stages (at least 4 voxels remain)."""
        dim = len(self.patch)
        widths = stock_configuration(dim)["architecture"]["arch_kwargs"]["features_per_stage"]
        poolings = min((min(self.patch) // 4).bit_length() - 1, len(widths) - 1)
        return self.features or (None if self.patch == PATCH[dim] else tuple(widths[: poolings + 1]))


@dataclass
class NetworkCost:
    """Measurements of one network. Times in seconds, memory in MiB, FLOPs of one forward pass of the batch.

    ``memory_mib`` is the peak of a training step on a GPU, and what a step keeps for its backward pass on a CPU.
    """

    name: str
    parameters: int
    flops: float
    memory_mib: float = 0.0
    step_s: float = 0.0
    inference_s: float = 0.0


@dataclass(frozen=True)
class BenchmarkResult:
    """Figures of the stock network and of the variants, each variant with the stock figures of its own turns."""

    setting: BenchmarkSetup
    pairs: list[tuple[NetworkCost, NetworkCost]]  # (stock, variant)


def benchmark(variants: Sequence[Variant], setting: BenchmarkSetup) -> BenchmarkResult:
    """Measure ``variants``, each in turns with the stock network; shows a progress bar."""
    pairs = []
    for variant in tqdm(variants, desc="benchmark", unit="network"):
        subjects = [BenchmarkedNetwork.of(None, setting), BenchmarkedNetwork.of(variant, setting)]
        _measure(subjects, setting)
        pairs.append((subjects[0].figures, subjects[1].figures))
    return BenchmarkResult(setting, pairs)


def step_seconds(
    variant: Variant, *, patch: tuple[int, ...], features: tuple[int, ...], batch: int, device: str, repeats: int = 3
) -> float:
    """Median time of a training step, without nnU-Net's network beside it and not compiled."""
    setting = BenchmarkSetup(
        patch, batch, device, "", repeats, torch.get_num_threads(), compiled=False, torch="", features=features
    )
    subject = BenchmarkedNetwork.of(variant, setting)
    _time(subject.step, setting)  # fills caches
    return median(_time(subject.step, setting) for _ in range(repeats))


class BenchmarkedNetwork:
    """A network with its loss and data, ready for training steps and predictions.

    Args:
        name: What the figures call it.
        network: Its class has nnU-Net's switch for deep supervision.
        loss: Takes all training outputs and ``targets``.
        setting: Patch, batch and device.
        flops: Operations of a forward pass of the batch.
        strides: Stride of every target.
        channels: Channels of the image.
        labels: What the target is drawn from.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        loss: nn.Module,
        setting: BenchmarkSetup,
        *,
        flops: float,
        strides: Sequence[Sequence[int]],
        channels: int,
        labels: LabelManager,
    ) -> None:
        self.setting, self.loss = setting, loss
        self.bare = network.to(setting.device)
        self.network = torch.compile(self.bare) if setting.compiled else self.bare
        self.optimizer = torch.optim.SGD(self.bare.parameters(), 1e-3)
        self.scaler = torch.amp.GradScaler(setting.device, enabled=setting.device == "cuda")
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(setting.batch, channels, *setting.patch, generator=generator).to(setting.device)
        target = _random_target(labels, setting, generator).to(setting.device)
        self.targets = [target[(..., *(slice(None, None, s) for s in stride))] for stride in strides]
        parameters = sum(p.numel() for p in self.bare.parameters() if p.requires_grad)
        self.figures = NetworkCost(name, parameters, flops)

    @classmethod
    def of(cls, variant: Variant | None, setting: BenchmarkSetup) -> "BenchmarkedNetwork":
        """A row's network at the reference geometry; ``None``: nnU-Net's own."""
        configuration = stock_configuration(len(setting.patch), features=setting.widths())
        channels, labels = channels_of(variant), LabelManager(LIVER_AND_TUMOR, None)
        network = build(configuration, variant, channels=channels)
        outputs = outputs_of(network, configuration)
        flops = forward_flops(*on_meta(configuration, variant, shape=(setting.batch, channels, *setting.patch)))
        return cls(
            STOCK if variant is None else variant.name,
            network,
            _loss(variant, outputs, labels),
            setting,
            flops=flops,
            strides=target_strides(outputs),
            channels=channels,
            labels=labels,
        )

    def step(self) -> Tensor:
        """One training step as nnU-Net does it; returns the loss."""
        self.bare.train()
        self.bare.decoder.deep_supervision = True
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.setting.device, enabled=self.setting.device == "cuda"):
            loss = self.loss(self.network(self.x), self.targets)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.bare.parameters(), 12)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def predict(self) -> None:
        """One prediction of a single patch, as the sliding window asks for it."""
        self.bare.eval()
        self.bare.decoder.deep_supervision = False
        with torch.inference_mode(), torch.autocast(self.setting.device, enabled=self.setting.device == "cuda"):
            self.network(self.x[:1])

    def kept_for_backward_mib(self) -> float:
        """Memory of the tensors that one training step keeps for its backward pass, without the parameters."""
        return saved_for_backward(self.bare, self.x) / MIB


def _measure(subjects: list[BenchmarkedNetwork], setting: BenchmarkSetup) -> None:
    """Fill in the figures."""
    for what, name in (("step", "step_s"), ("predict", "inference_s")):
        seconds = seconds_in_turns([getattr(subject, what) for subject in subjects], setting)
        for subject, measured in zip(subjects, seconds, strict=True):
            setattr(subject.figures, name, measured)
    for subject in subjects:
        subject.figures.memory_mib = memory_mib(subject, setting)


def seconds_in_turns(calls: Sequence[Callable[[], object]], setting: BenchmarkSetup, *, before: int = 2) -> list[float]:
    """Median time of each call; they take turns, so that what disturbs one disturbs the others.

    Each is first called ``before`` times, to compile and to fill caches.
    """
    for call in calls:
        for _ in range(before):
            _time(call, setting)
    turns = [[_time(call, setting) for call in calls] for _ in range(setting.repeats)]
    return [median(column) for column in zip(*turns, strict=True)]


def _time(call: Callable[[], object], setting: BenchmarkSetup) -> float:
    if setting.device == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    call()
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def memory_mib(subject: BenchmarkedNetwork, setting: BenchmarkSetup) -> float:
    """Peak of a training step on a GPU; on a CPU what it keeps for the backward pass."""
    if setting.device != "cuda":
        return subject.kept_for_backward_mib()
    subject.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()  # both networks are loaded: only what the step adds is its own
    torch.cuda.reset_peak_memory_stats()
    subject.step()
    parameters = sum(p.numel() * p.element_size() for p in subject.bare.parameters())
    return (torch.cuda.max_memory_allocated() - before + parameters) / MIB


def outputs_of(network: nn.Module, configuration: dict) -> list[TrainingOutput]:
    """What a network declares; nnU-Net's deep supervision for its own networks."""
    if hasattr(network, "training_outputs"):
        return network.training_outputs()
    return nnunet_outputs(configuration["architecture"]["arch_kwargs"]["strides"])


def _loss(variant: Variant | None, outputs: list[TrainingOutput], labels: LabelManager) -> nn.Module:
    if variant is None:
        return DeepSupervisionWrapper(LOSSES["dice_ce"](labels, False, False), [output.weight for output in outputs])
    return MultiOutputLoss(LOSSES[variant.loss](labels, False, False), outputs)


def _random_target(labels: LabelManager, setting: BenchmarkSetup, generator: torch.Generator) -> Tensor:
    """Labels in one channel, or one channel per region; voxels to ignore have a channel or value, but are not drawn."""
    regions = labels.num_segmentation_heads if labels.has_regions else 0
    size = (setting.batch, regions or 1, *setting.patch)
    target = torch.randint(0, 2 if regions else labels.num_segmentation_heads, size, generator=generator)
    extra = torch.zeros_like(target[:, :1]) if regions and labels.has_ignore_label else target[:, :0]
    return torch.cat([target, extra], dim=1)
