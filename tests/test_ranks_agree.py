"""What several processes decide, they decide alike, however the last bits of what each computes differ."""

import numpy as np
import pytest
from processes import Several, ends, figures, fitted

from recvae.compute.ranks import current
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
