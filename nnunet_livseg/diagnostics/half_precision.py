"""A GPU's mixed precision on a processor: which values overflow float16, found without a GPU.

Torch's own autocast for processors computes in float16 itself, which takes minutes for a small patch, and rounds
other operations than CUDA's autocast does. So values are stored in float16 and computed in float32.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# CUDA's autocast runs these in float16 (convolutions, products) or hands on float16 (normalizations)
FLOAT16 = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul"),
    *("rmatmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "prelu", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "batch_norm", "instance_norm"),
}
# and these in float32
FLOAT32 = {
    *("pow", "rpow", "rtruediv", "rdiv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sum"),
    *("prod", "cumsum", "cumprod", "norm", "normalize", "dist", "cdist", "softmax", "softmin", "log_softmax"),
    *("softplus", "group_norm", "layer_norm", "cosine_similarity", "cross_entropy", "mse_loss"),
}


class _StoredInHalf(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        name = name[2:-2] if name.startswith("__") and name.endswith("__") else name  # of an operator
        if name not in FLOAT16 | FLOAT32:
            return func(*args, **(kwargs or {}))
        result = func(*tree_map(_single, args), **tree_map(_single, dict(kwargs or {})))
        return tree_map(_half, result) if name in FLOAT16 else result


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.float16 else value


def _half(value: Any) -> Any:
    return value.half() if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value


@contextmanager
def mixed_precision(device: str) -> Iterator[None]:
    """Autocast as nnU-Net trains with on a GPU; on a processor the same values, computed in float32."""
    with torch.autocast("cuda") if device == "cuda" else _StoredInHalf():
        yield
