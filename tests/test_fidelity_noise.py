"""The plain autoencoder has no noise; the denoising one has that of its papers, in training only.

Liang et al. 2018 (masking) and Vincent et al. 2010, section 3.3 (Gaussian noise, salt and pepper).
"""

from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional

from recvae.models import AE, MultDAE
from recvae.models.ae import AENetwork
from recvae.models.common.noise import NOISES, NoisyInput, corrupt
from recvae.training.batches import SparseBatch, whole_batch

# Letters in shape comments: U users, I items.

N_USERS, N_ITEMS = 300, 120
HIDDEN = [(), (7,), (7, 5)]


def rows(n_users: int = N_USERS, n_items: int = N_ITEMS) -> sp.csr_matrix:
    """Return users with weighted items, everyone with another number of them, one with none."""
    rng = np.random.default_rng(1)
    dense = rng.integers(1, 4, (n_users, n_items)) * (rng.random((n_users, n_items)) < rng.random((n_users, 1)))
    dense[4] = 0
    return sp.csr_matrix(dense, dtype=np.float32)


def cpu_batch(x: sp.csr_matrix) -> SparseBatch:
    return whole_batch(x, torch.device("cpu"))


def dense_input(batch: SparseBatch, noisy: NoisyInput, n_items: int = N_ITEMS) -> torch.Tensor:
    """Return what the encoder sees as one block (U, I)."""
    block = torch.zeros(len(batch), n_items)
    block[batch.rows, batch.items.long()] = noisy.values
    return block if noisy.extra is None else block + noisy.extra


def corrupted(noise: str, share: float = 0.5, level: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clean and corrupted rows (U, I)."""
    batch = cpu_batch(rows())
    noisy = corrupt(batch, N_ITEMS, noise, share, level, torch.Generator().manual_seed(seed))
    return dense_input(batch, NoisyInput(batch.inputs)), dense_input(batch, noisy)


def with_random_weights(model: AE, n_items: int = 11) -> AE:
    """Return the model with weights so large that every tanh bends."""
    rng = np.random.default_rng(2)
    shapes = {name: value.shape for name, value in model._network(n_items).state_dict().items()}
    model.load_weights({name: rng.normal(0, 0.8, shape).astype(np.float32) for name, shape in shapes.items()})
    model.network_.requires_grad_(True)
    return model


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_masking_hides_the_right_share_of_a_users_items_and_scales_up_the_others(share: float) -> None:
    """Without the scaling the encoder meets inputs larger than it was trained on; Cornac hides nothing."""
    clean, seen = corrupted("masking", share=share)
    torch.testing.assert_close(clean, functional.normalize(torch.from_numpy(rows().toarray())))
    own, kept = clean > 0, seen != 0
    assert not (kept & ~own).any()
    assert kept[own].float().mean().item() == pytest.approx(1 - share, abs=0.01)
    torch.testing.assert_close(seen[kept], clean[kept] / (1 - share))
    assert seen[own].mean().item() == pytest.approx(clean[own].mean().item(), rel=0.03)


@pytest.mark.parametrize("level", [0.01, 0.3])
def test_gaussian_noise_has_the_given_deviation_at_every_item(level: float) -> None:
    clean, seen = corrupted("gaussian", level=level)
    noise = seen - clean
    for at in (clean > 0, clean == 0):  # the user's own items and all others
        assert noise[at].mean().item() == pytest.approx(0, abs=0.05 * level)
        assert noise[at].std().item() == pytest.approx(level, rel=0.03)
    assert (noise / level).abs().max() > 3.5  # a normal's tail, no uniform's edge


@pytest.mark.parametrize("level", [0.05, 0.4])
def test_salt_and_pepper_replace_their_share_of_all_items_half_each(level: float) -> None:
    """Salt is the user's highest value, pepper 0; they fall on items a user has not touched as well."""
    clean, seen = corrupted("salt-and-pepper", level=level)
    own = clean > 0
    highest = clean.max(dim=1, keepdim=True).values.expand_as(clean)
    untouched, salt, pepper = seen == clean, seen == highest, seen == 0
    assert (untouched | salt | pepper).all()
    assert salt[~own & (highest > 0)].float().mean().item() == pytest.approx(level / 2, rel=0.1)
    below = own & (clean < highest)  # where salt, pepper and the value itself differ
    assert salt[below].float().mean().item() == pytest.approx(level / 2, rel=0.15)
    assert pepper[below].float().mean().item() == pytest.approx(level / 2, rel=0.15)
    torch.testing.assert_close(seen[below & untouched], clean[below & untouched], rtol=0, atol=0)  # no scaling
    assert not seen[4].any()  # the highest of nothing is 0


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_drawn_anew_for_every_batch_and_depends_on_nothing_but_the_seed(noise: str) -> None:
    assert torch.equal(corrupted(noise, seed=1)[1], corrupted(noise, seed=1)[1])
    assert not torch.equal(corrupted(noise, seed=1)[1], corrupted(noise, seed=2)[1])


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("hidden_dims", HIDDEN)
def test_the_network_computes_on_noisy_rows_what_dense_layers_would(hidden_dims: tuple[int, ...], noise: str) -> None:
    x = rows(23, 11)
    model = with_random_weights(MultDAE(hidden_dims=hidden_dims, latent_dim=3))
    batch = cpu_batch(x)
    noisy = corrupt(batch, 11, noise, 0.4, 0.2, torch.Generator().manual_seed(3))
    weights = {name: value.double() for name, value in model.network_.state_dict().items()}
    hidden = dense_input(batch, noisy, 11).double() @ weights["encoder.0.weight"] + weights["encoder.0.bias"]
    for layer in range(len(hidden_dims) + 1 + len(hidden_dims)):
        linear = weights[f"decoder.{layer}.weight"], weights[f"decoder.{layer}.bias"]
        hidden = functional.linear(torch.tanh(hidden), *linear)
    network = cast(AENetwork, model.network_)
    ours = network.output(network.decode(network.encode(batch, noisy))).detach()
    torch.testing.assert_close(ours.double(), hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", NOISES)
def test_there_is_noise_in_training_and_none_at_scoring(noise: str) -> None:
    x = rows(23, 11)
    noisy = with_random_weights(MultDAE(latent_dim=3, noise=noise, dropout=0.9, noise_level=0.9))
    plain = AE(latent_dim=3).load_weights(noisy.weights())
    np.testing.assert_array_equal(noisy.score(x), plain.score(x))
    clean, seen = (model._loss(cpu_batch(x), 0.0, torch.Generator().manual_seed(0)).total for model in (plain, noisy))
    assert abs(clean.item() - seen.item()) > 0.1


def test_the_plain_autoencoder_draws_no_noise() -> None:
    x = rows(23, 11)
    model = with_random_weights(AE(latent_dim=3))
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    seen: list[torch.Tensor] = []

    def look(module: nn.Module, arguments: tuple[SparseBatch, torch.Tensor, Any]) -> None:
        assert arguments[2] is None
        seen.append(arguments[1])

    model.network_.get_submodule("encoder.0").register_forward_pre_hook(look)
    model._loss(cpu_batch(x), 0.0, generator)
    model.score(x)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], cpu_batch(x).inputs)


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli", "gaussian"])
@pytest.mark.parametrize("hidden_dims", HIDDEN)
def test_the_plain_autoencoders_loss_and_gradients_are_those_of_dense_layers(
    hidden_dims: tuple[int, ...], likelihood: str
) -> None:
    x = rows(23, 11)
    model = with_random_weights(AE(hidden_dims=hidden_dims, latent_dim=3, likelihood=likelihood, confidence=3.0))
    losses = model._loss(cpu_batch(x), 0.0, torch.Generator())
    losses.total.backward()

    weights = {name: value.double().requires_grad_() for name, value in model.network_.state_dict().items()}
    target = torch.from_numpy(x.toarray()).double()
    hidden = functional.normalize(target) @ weights["encoder.0.weight"] + weights["encoder.0.bias"]
    for layer in range(len(hidden_dims) + 1 + len(hidden_dims)):
        linear = weights[f"decoder.{layer}.weight"], weights[f"decoder.{layer}.bias"]
        hidden = functional.linear(torch.tanh(hidden), *linear)
    if likelihood == "multinomial":
        per_item = -target * torch.log_softmax(hidden, dim=1)
    elif likelihood == "bernoulli":
        per_item = functional.binary_cross_entropy_with_logits(hidden, (target > 0).double(), reduction="none")
    else:
        per_item = torch.where(target > 0, 3.0, 1.0) * (target - hidden) ** 2 / 2
    expected = per_item.sum(dim=1).mean()
    expected.backward()

    assert losses.total.item() == losses.reconstruction.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.kl is None
    for name, parameter in model.network_.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad.double(), weights[name].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_class", [AE, MultDAE])
def test_weight_decay_is_twice_the_papers_lambda_and_on_weights_only(model_class: type[AE]) -> None:
    """The re-run that missed the paper by .023 had 0.01, 250 times too much, and a penalty on biases.

    Nobody here has an item, so the likelihood has no gradient and whatever moves, moves by the penalty: with Adam,
    each weight by one step towards 0.
    """
    assert model_class().weight_decay == 4e-5
    nobody = sp.csr_matrix((6, 30))
    settings: dict[str, Any] = {"hidden_dims": (4,), "latent_dim": 3, "epochs": 1}
    start = model_class(**settings, learning_rate=0.0).fit(nobody, device="cpu").weights()
    decayed = model_class(**settings, learning_rate=1e-3).fit(nobody, device="cpu").weights()
    free = model_class(**settings, learning_rate=1e-3, weight_decay=0.0).fit(nobody, device="cpu").weights()
    for name, value in start.items():
        np.testing.assert_array_equal(free[name], value)
        if value.ndim == 1:
            np.testing.assert_array_equal(decayed[name], value)
        else:
            gradient = 4e-5 * np.abs(value)
            step = 1e-3 * gradient / (gradient + 1e-8)  # of Adam, the first one
            np.testing.assert_allclose(np.sign(value) * (value - decayed[name]), step, rtol=1e-2, err_msg=name)
