"""The three likelihoods against values worked out by hand and dense formulas, alone and inside the models.

The multinomial one by hand is in `test_losses.py` too; metrics are checked against brute force and scikit-learn in
`test_metrics.py`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recvae.models import AE, HVamp, MultDAE, MultVAE, hvamp, multvae
from recvae.models.common.autoencoder import Autoencoder
from recvae.training.batches import whole_batch
from recvae.training.losses import LIKELIHOODS, likelihood

# Letters in shape comments: U users, I items.

CPU = torch.device("cpu")
CONFIDENCE = 3.0

# Three users, four items; the last user has none.
X = sp.csr_matrix([[1, 0, 1, 0], [0, 2, 0, 1], [0, 0, 0, 0]], dtype=np.float32)
LOGITS = torch.tensor(
    [[0.0, 0.0, 0.0, 0.0], [0.0, math.log(2), 0.0, math.log(4)], [math.log(3), 0.0, 0.0, -math.log(3)]],
    dtype=torch.float64,
)
L2, L4 = math.log(2), math.log(4)
BY_HAND = {
    # softmax 1/4 each; 1/8, 2/8, 1/8, 4/8
    "multinomial": [2 * math.log(4), 2 * math.log(4) + math.log(2), 0.0],
    # sigmoid 1/2 each; 1/2, 2/3, 1/2, 4/5; 3/4, 1/2, 1/2, 1/4: log of 1 / p where there is an item, of 1 / (1 - p)
    # elsewhere; a weight of 2 is one item
    "bernoulli": [4 * L2, L2 + math.log(3 / 2) + L2 + math.log(5 / 4), math.log(4) + 2 * L2 + math.log(4 / 3)],
    # half of: 3 (1 - 0)^2 twice; 3 (2 - log 2)^2 + 3 (1 - log 4)^2; log(3)^2 twice
    "gaussian": [3.0, 1.5 * (2 - L2) ** 2 + 1.5 * (1 - L4) ** 2, math.log(3) ** 2],
}


def dense_loss(name: str, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the textbook formula of each user (U,)."""
    if name == "multinomial":
        return -(x * torch.log_softmax(logits, dim=1)).sum(dim=1)
    if name == "bernoulli":
        p, seen = torch.sigmoid(logits), (x > 0).double()
        return -(seen * p.log() + (1 - seen) * (1 - p).log()).sum(dim=1)
    confidence = torch.where(x > 0, CONFIDENCE, 1.0)
    return (confidence * (x - logits) ** 2 / 2).sum(dim=1)


def rows(n_users: int = 23, n_items: int = 11) -> sp.csr_matrix:
    """Return users with weighted items, everyone with another number of them, one with none."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (n_users, n_items)) * (rng.random((n_users, n_items)) < rng.random((n_users, 1)))
    dense[4] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_losses_of_three_users_and_four_items_are_those_worked_out_by_hand(name: str) -> None:
    """Cornac's log(softmax + 1e-10) and a mean over items instead of a sum would both show here."""
    ours = likelihood(name, CONFIDENCE)(LOGITS, whole_batch(X, CPU))
    torch.testing.assert_close(ours, torch.tensor(BY_HAND[name], dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_those_of_autograd_on_the_dense_formula(name: str) -> None:
    x, rng = rows(), np.random.default_rng(2)
    ours = torch.from_numpy(rng.normal(0, 4, x.shape)).requires_grad_()
    dense = ours.detach().clone().requires_grad_()
    weight = torch.linspace(-1, 2, x.shape[0], dtype=torch.float64)  # each user counts differently
    loss = likelihood(name, CONFIDENCE)(ours, whole_batch(x, CPU))
    expected = dense_loss(name, dense, torch.from_numpy(x.toarray()).double())
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_losses_stay_finite_where_probabilities_underflow(name: str) -> None:
    """log(p + 1e-10), as in Cornac's code, goes flat there: its gradient vanishes where it is needed most."""
    logits = torch.tensor([[-200.0, 200.0, -200.0, 200.0]]).requires_grad_()
    loss = likelihood(name)(logits, whole_batch(sp.csr_matrix([[1, 0, 1, 0]], dtype=np.float32), CPU))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert loss.item() >= 400
    assert logits.grad is not None
    assert (logits.grad[0, [0, 2]] <= -1).all()  # each missed item is pulled up with full strength


def noiseless(model: Autoencoder) -> Autoencoder:
    """Return the model with large random weights, ready for its loss."""
    model.network_, model.n_items_ = model._network(11), 11
    generator = torch.Generator().manual_seed(2)
    model._initialise(generator)
    for parameter in model.network_.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=generator)
    return model


CHOICES: list[tuple[Callable[..., Autoencoder], dict[str, Any], str]] = [
    *((AE, {}, name) for name in LIKELIHOODS),
    *((MultDAE, {"dropout": 0.0}, name) for name in LIKELIHOODS),
    *((MultVAE, {"dropout": 0.0, "hidden_dims": (5,)}, name) for name in LIKELIHOODS),
    *((HVamp, {"dropout": 0.0, "hidden_dim": 5, "pseudo_inputs": 3}, name) for name in ("multinomial", "bernoulli")),
]


@pytest.mark.parametrize(("model_class", "settings", "name"), CHOICES)
def test_the_likelihood_a_model_is_told_to_take_is_that_of_its_scores(
    model_class: Any, settings: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, training and scoring see the same: the reconstruction is the mean over users of the formula."""
    for module in (multvae, hvamp):
        monkeypatch.setattr(module, "sample", lambda mean, *_: mean)
    if model_class is not HVamp:
        settings = {**settings, "confidence": CONFIDENCE}
    x, model = rows(), noiseless(model_class(**settings, latent_dim=3, likelihood=name))
    with torch.no_grad():
        losses = model._loss(whole_batch(x, CPU), 0.0, torch.Generator())
    scores = torch.from_numpy(model.score(x)).double()
    expected = dense_loss(name, scores, torch.from_numpy(x.toarray()).double()).mean()
    assert losses.total.item() == losses.reconstruction.item() == pytest.approx(expected.item(), rel=1e-4)
