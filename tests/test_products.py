"""Products by oneDNN are those of PyTorch up to rounding in float32, and are taken where they can be."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recvae.compute import matmul
from recvae.compute.matmul import product
from recvae.models.common.networks import Linear

LARGE = (64, 300, 200)  # n, k, m: worth the call


def matrices(n: int, k: int, m: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator), torch.randn(k, m, generator=generator)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Return a list that shapes are added to when oneDNN is asked."""
    if not matmul._has_onednn():
        pytest.skip("this build of PyTorch has no oneDNN for float32")
    seen: list[tuple[int, ...]] = []
    original = matmul._by_onednn

    def spy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((*a.shape, b.shape[1]))
        return original(a, b)

    monkeypatch.setattr(matmul, "_by_onednn", spy)
    yield seen


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 300), st.integers(1, 300)),
    turned=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_product_is_that_of_float64_up_to_rounding_however_the_matrices_lie(
    shape: tuple[int, int, int], turned: tuple[bool, bool], seed: int
) -> None:
    a, b = matrices(*shape, seed=seed)
    a, b = (x.t().contiguous().t() if turn else x for x, turn in zip((a, b), turned, strict=True))
    exact = a.double() @ b.double()
    bound = 2**-22 * (a.double().abs() @ b.double().abs())  # of a sum of float32 products, whatever their order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul, "_WORTHWHILE", 0)  # so that oneDNN is asked for the smallest too
        found = product(a, b)
    assert ((found.double() - exact).abs() <= bound * max(1, shape[1] ** 0.5)).all()


def test_large_products_of_float32_are_onednns(calls: list[tuple[int, ...]]) -> None:
    a, b = matrices(*LARGE)
    product(a, b)
    assert calls == [LARGE]


@pytest.mark.parametrize("kind", ["few numbers", "float64", "bfloat16", "none here", "switched off"])
def test_any_others_are_pytorchs_own(kind: str, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrices(*((4, 30, 20) if kind == "few numbers" else LARGE))
    if kind in ("float64", "bfloat16"):
        a, b = (x.to(getattr(torch, kind)) for x in (a, b))
    if kind == "none here":
        monkeypatch.setattr(matmul, "_has_onednn", lambda: False)
    if kind == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert torch.equal(product(a, b), a @ b)
    assert not calls


def test_what_does_not_fit_is_refused_by_pytorch_in_its_words(calls: list[tuple[int, ...]]) -> None:
    a, b = matrices(*LARGE)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product(a, b.t().contiguous())
    product(a, b.to("meta"))
    assert torch.equal(product(a, b[:, 0]), a @ b[:, 0])
    assert torch.equal(product(a[None], b), a[None] @ b)
    assert not calls


def test_a_build_whose_product_fails_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_signature(*_: object) -> torch.Tensor:
        raise TypeError("unexpected arguments")

    monkeypatch.setattr(matmul, "_by_onednn", other_signature)
    assert not matmul._has_onednn.__wrapped__()


def test_an_expanded_gradient_and_columns_of_a_matrix_are_multiplied_too(calls: list[tuple[int, ...]]) -> None:
    a, b = matrices(64, 600, 400)
    a, b = a[:, ::2].requires_grad_(), b[::2, ::2].requires_grad_()
    gradients = torch.autograd.grad(product(a, b).sum(), [a, b])  # each number of the gradient is the same one
    expected = torch.autograd.grad((a @ b).sum(), [a, b])
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert len(calls) == 3
    with torch.inference_mode():
        torch.testing.assert_close(product(a, b), a @ b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("frozen", [None, 0, 1])
def test_gradients_are_those_of_pytorch_and_what_is_frozen_costs_none(
    frozen: int | None, calls: list[tuple[int, ...]]
) -> None:
    pair = matrices(*LARGE)
    ours = [x.clone().requires_grad_(number != frozen) for number, x in enumerate(pair)]
    theirs = [x.double().requires_grad_(number != frozen) for number, x in enumerate(pair)]
    weight = torch.linspace(-1, 2, LARGE[0])[:, None]
    (product(*ours) * weight).sum().backward()
    ((theirs[0] @ theirs[1]) * weight).sum().backward()
    assert len(calls) == (3 if frozen is None else 2)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert (one.grad is None) == (number == frozen)
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad.float(), rtol=1e-4, atol=1e-3)


def test_linear_layers_multiply_so_and_are_linear_layers(calls: list[tuple[int, ...]]) -> None:
    layer = Linear(300, 200)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    x, _ = matrices(*LARGE)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)
    assert calls == [LARGE]
