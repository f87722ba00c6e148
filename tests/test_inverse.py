"""The inverse of a symmetric positive definite matrix: right at every size, in its own memory, or none."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.compute import inverse
from recvae.compute.inverse import invert


def definite(n: int, shift: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return X^T X + shift I (n, n), float32."""
    rows = np.random.default_rng(seed).standard_normal((2 * n + 1, n), dtype=np.float32)
    return rows.T @ rows / np.float32(2 * n) + np.float32(shift) * np.eye(n, dtype=np.float32)


@pytest.fixture(params=["lapack", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Invert in one call of LAPACK, or block by block with small blocks and tiles."""
    if request.param == "blocks":
        monkeypatch.setattr(inverse, "_LAPACKS", 0)
        monkeypatch.setattr(inverse, "_SIDE", 128)
        monkeypatch.setattr(inverse, "_TILE", 300)
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 511, 512, 513, 600, 1023, 1025, 1500])
def test_it_is_numpys_inverse_in_double_precision(n: int) -> None:
    block = definite(n)
    expected = np.linalg.inv(block.astype(np.float64))
    assert invert(block)
    np.testing.assert_allclose(block, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)
    np.testing.assert_array_equal(block, block.T)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 7), st.integers(0, 5))
def test_blocks_and_tiles_of_any_size_give_the_same(n: int, side: int, tile: int, seed: int) -> None:
    block = definite(n, seed=seed)
    expected = np.linalg.inv(block.astype(np.float64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "_LAPACKS", 0)
        patch.setattr(inverse, "_SIDE", side)
        patch.setattr(inverse, "_TILE", tile)
        assert invert(block)
    np.testing.assert_allclose(block, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.usefixtures("way")
def test_only_the_upper_triangle_is_read() -> None:
    block = definite(700)
    expected = np.linalg.inv(block.astype(np.float64))
    block[np.tril_indices(700, -1)] = np.nan
    assert invert(block)
    np.testing.assert_allclose(block, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("n", [2, 400, 1300])
@pytest.mark.parametrize("place", [0, -1])
def test_without_an_inverse_it_says_so(n: int, place: int) -> None:
    block = definite(n)
    block[place, :] = block[:, place] = 0.0  # an item without interactions and without a penalty
    assert not invert(block)
    block = definite(n)
    block[place, place] = -1.0
    assert not invert(block)
    block = definite(n)
    block[place, place] = np.nan
    assert not invert(block)
    block = definite(n, shift=0.0)
    block[:, -1] = block[-1, :] = block[0]  # the last row is the first once more
    block[-1, -1] = block[0, 0]
    assert not invert(block)


@pytest.mark.usefixtures("way")
def test_little_memory_is_needed_beside_the_matrix() -> None:
    block = definite(1500)
    tracemalloc.start()
    try:
        assert invert(block)
        assert tracemalloc.get_traced_memory()[1] < block.nbytes / 2
    finally:
        tracemalloc.stop()
