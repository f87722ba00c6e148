"""What several processes decide, they decide alike, however the last bits of what each computes differ."""

import numpy as np
import pytest
import torch
from processes import Several, ends, figures, fitted

from recvae.compute import devices
from recvae.compute.ranks import current
from recvae.models.common import base
from recvae.training import validation


@pytest.mark.parametrize("share", ["users", "items"])
def test_all_keep_the_epoch_of_the_first_process(several: Several, monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    """Else weights of two epochs would be put together, or one process would wait for another that has ended."""
    mean = np.nanmean

    def other(values: np.ndarray) -> float:
        return float(mean(values)) * (1 if current().rank == 0 else -1)  # the best is the worst there

    def work() -> object:
        model = fitted(epochs=4, patience=2)
        return model.history_.best_epoch, len(model.log_), model.history_.best_value

    expected = figures(fitted(epochs=4, patience=2))
    monkeypatch.setattr(validation.np, "nanmean", other)
    one, two = ends(several, 2, work, share)
    assert one == two and one[0] == expected["best"], (one, two)


def test_processors_that_would_choose_another_precision_are_refused(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of gradients would be the same in all, so that weights stay in step, of products in two precisions."""
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda _: current().rank == 1)
    monkeypatch.setattr(devices, "_WORTHWHILE", 1)
    one, two = ends(several, 2, fitted)
    assert one == two and one[0] == "UsageError", (one, two)
    words = "got precision bfloat16 in process 1 and float32 in process 0, expected the same number format of products"
    assert words in one[1] and "--precision float32" in one[1]


def test_kinds_of_devices_that_differ_are_refused(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """With auto, a machine without a GPU would wait for one that has one, in another kind of sum."""
    monkeypatch.setattr(base, "resolve_device", lambda _: torch.device("cuda" if current().rank else "cpu"))
    monkeypatch.setattr(base, "check_fits", lambda *_: None)
    one, two = ends(several, 2, fitted)
    assert one == two and "got device cuda in process 1 and cpu in process 0, expected the same model and" in one[1]
