"""URIM: correct unsure positions with the features of sure ones around them.

Zhang et al., Spatial Aggregation and Uncertain Region Inpainting, MICCAI 2021, section 2.2 and Fig. 2(b).
Readings (docs/papers/sam_urim.md): the input is the decoder's features and the initial scores; the confidence is only
widened by max pooling between the convolutions; the last layer reads refined and input features (authors' code: refined
only, ``concat_input=False``). The gradient passes through the confidence.
"""

# Shape letters:  B batch, K classes, F features of the decoder, W width of the refined features, *S spatial sizes

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_livseg.blocks.attention_spec import VOXELS, AttentionSpec, ModuleCall
from nnunet_livseg.blocks.confidence import class_confidence, region_confidence
from nnunet_livseg.blocks.lc_conv import LocalConfidenceConv
from nnunet_livseg.blocks.precision import widened
from nnunet_livseg.blocks.tensor_helpers import kernel_like, same_padding

LAYERS = 4


class _FirstConv(LocalConfidenceConv):
    """The convolution that reads the scores: its kernels are as many as there are classes, as those of a head.

    So they are called as nnU-Net calls heads, which ``nnUNetv2_train -pretrained_weights`` leaves out.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        kernels = self.conv
        del self.conv
        self.seg_layers = nn.ModuleList([kernels])

    @property
    def conv(self) -> nn.Module:
        """The convolution itself."""
        return self.seg_layers[0]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        if f"{prefix}conv.weight" in state_dict:  # of checkpoints before this name
            state_dict[f"{prefix}seg_layers.0.weight"] = state_dict.pop(f"{prefix}conv.weight")
        super()._load_from_state_dict(state_dict, prefix, *args)


class UncertainRegionInpainting(nn.Module):
    """Refine an initial segmentation by four local-confidence convolutions.

    Args:
        features: Channels F of the decoder's features.
        num_classes: Channels K of the initial logits.
        width: Channels W of the refined features.
        conv_op: ``nn.Conv2d`` or ``nn.Conv3d``.
        norm: Makes the normalization of so many channels.
        kernel_size: The plans' kernel of this level; axes with kernel 1 are not mixed.
        dropout: Probability of dropout after the second to the fourth convolution.
        concat_input: Whether the last layer also reads the module's input.
        bias: See ``LocalConfidenceConv``.
        regions: Whether the logits are sigmoids of regions instead of a softmax over classes.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        width: int,
        conv_op: type[nn.Module],
        norm: Callable[[int], nn.Module],
        kernel_size: Sequence[int],
        dropout: float = 0.1,
        concat_input: bool = True,
        bias: str = "outside",
        regions: bool = False,
    ) -> None:
        super().__init__()
        inputs = features + num_classes
        self.kernel_size = kernel_like(3, kernel_size)
        self.concat_input = concat_input
        options = {"conv_op": conv_op, "kernel_size": self.kernel_size, "bias": bias}
        self.convs = nn.ModuleList(
            _FirstConv(inputs, width, **options) if i == 0 else LocalConfidenceConv(width, width, **options)
            for i in range(LAYERS)
        )
        self.after = nn.ModuleList(
            nn.Sequential(norm(width), nn.ReLU(), nn.Dropout(dropout if i > 0 else 0.0)) for i in range(LAYERS)
        )
        self.seg_layers = nn.ModuleList([conv_op(width + inputs * concat_input, num_classes, 1)])
        self._pool = F.max_pool3d if conv_op is nn.Conv3d else F.max_pool2d
        self.regions = regions or num_classes == 1  # a softmax over one class would be sure of everything

    def scores_and_confidence(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``(B, K, *S)`` and confidence ``(B, 1, *S)`` of ``logits (B, K, *S)``, both float32."""
        logits = widened(logits)
        if self.regions:
            return torch.sigmoid(logits), region_confidence(logits)
        return torch.softmax(logits, 1), class_confidence(logits)

    def forward(self, initial: Tensor, features: Tensor) -> Tensor:
        """Final logits ``(B, K, *S)`` from ``initial`` logits ``(B, K, *S)`` and ``features (B, F, *S)``."""
        scores, confidence = self.scores_and_confidence(initial)
        x = refined = torch.cat([scores.to(features.dtype), features], 1)
        for i, (conv, after) in enumerate(zip(self.convs, self.after, strict=True)):
            if i > 0:
                confidence = self._pool(confidence, self.kernel_size, 1, same_padding(self.kernel_size))
            refined = after(conv(refined, confidence)).to(features.dtype)
        return self.seg_layers[0](torch.cat([refined, x], 1) if self.concat_input else refined)

    def attention_specs(self, level: int) -> list[AttentionSpec]:
        """How sure the initial segmentation is; see ``blocks.attention_spec``."""
        title, source = "URIM: confidence of the initial segmentation", "SAM + URIM, Eq. (3)"

        def read(call: ModuleCall) -> Tensor:
            return self.scores_and_confidence(call.inputs[0])[1]

        return [AttentionSpec("confidence", title, source, VOXELS, level, self, read)]
