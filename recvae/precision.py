"""In which numbers the largest products are computed: float32, or bfloat16 where the hardware multiplies it faster.

Weights, their gradients' use and everything but the products with the items' layer stay in float32.
"""

import torch

PRECISIONS = ("auto", "float32", "bfloat16")
_WORTHWHILE = 1 << 19  # weights of a layer: for less, casting takes as long as bfloat16 saves


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16.

    Parameters
    ----------
    device : torch.device
        The CPU of this machine, or one of its GPUs.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # of PyTorch, not all versions have them
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


def resolve_precision(precision: str, device: torch.device, n_weights: int) -> torch.dtype:
    """Return the type of numbers that a layer is multiplied in.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`; "auto" takes bfloat16 where the device multiplies it and the layer is large enough.
    device : torch.device
        Where it is computed.
    n_weights : int
        Of the layer.
    """
    if precision == "auto":
        is_faster = n_weights >= _WORTHWHILE and multiplies_bfloat16(device)
        return torch.bfloat16 if is_faster else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
