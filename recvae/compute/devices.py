"""The device to compute on, and the precision of the largest products: float32, or bfloat16 where it is faster.

Only the products with the item layer use bfloat16; weights and everything else stay in float32.
"""

import torch

from recvae.compute.ranks import current
from recvae.errors import UsageError

PRECISIONS = ("auto", "float32", "bfloat16")
_WORTHWHILE = 1 << 19  # weights of a layer: with fewer, casting takes as long as bfloat16 saves


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for bfloat16 products.

    Parameters
    ----------
    device : torch.device
        The CPU of this machine, or one of its GPUs.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not every version of PyTorch has both
    return any(getattr(torch.cpu, name, lambda: False)() for name in known)


def resolve_precision(precision: str, device: torch.device, n_weights: int) -> torch.dtype:
    """Return the dtype in which a layer is multiplied.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`; "auto" is bfloat16 if the device supports it and the layer is large enough.
    device : torch.device
        The device that computes.
    n_weights : int
        Number of weights of the layer.
    """
    if precision == "auto":
        is_faster = n_weights >= _WORTHWHILE and multiplies_bfloat16(device)
        return torch.bfloat16 if is_faster else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    device : str or torch.device
        "auto" is a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:N". Of several processes that train
        together, each has a GPU of its own.

    Raises
    ------
    UsageError
        If this machine has no such device, or has fewer GPUs than processes.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if current().several and str(device).startswith("cuda"):
        if str(device) not in ("cuda", f"cuda:{current().local_rank}"):
            raise UsageError(
                f"got device '{device}' with {current().size} processes, each of which has a GPU of its own; use "
                "--device cuda"
            )
        device = f"cuda:{current().local_rank}"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UsageError(f"got device '{device}', expected auto, cpu, cuda or cuda:N") from None
    if resolved.type not in ("cpu", "cuda"):
        raise UsageError(f"got device '{device}', expected auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda" and (
        not torch.cuda.is_available() or (resolved.index or 0) >= torch.cuda.device_count()
    ):
        found, ranks = torch.cuda.device_count(), current()
        fewer = f"start {found} processes on this machine, or " if found and ranks.several else ""
        raise UsageError(
            f"got device '{device}', but PyTorch sees {found} CUDA devices; {fewer}use --device cpu, or install a CUDA "
            "build of PyTorch"
        )
    return resolved
