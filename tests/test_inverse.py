"""The inverse of a symmetric positive definite matrix: right at every size, in its own memory, or none."""

import os
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recvae.compute import inverse, lapack
from recvae.compute.inverse import invert


def definite(n: int, shift: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return X^T X + shift I (n, n), float32."""
    rows = np.random.default_rng(seed).standard_normal((2 * n + 1, n), dtype=np.float32)
    return rows.T @ rows / np.float32(2 * n) + np.float32(shift) * np.eye(n, dtype=np.float32)


@pytest.fixture(params=["here", "apart", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> str:
    """Invert in one call of LAPACK, here or in another process, or block by block with small blocks and tiles."""
    if request.param != "here":
        monkeypatch.setattr(inverse, "_HERE", 0)
    if request.param == "apart":
        monkeypatch.setattr(sys, "executable", warm_python)
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
        patch.setattr(inverse, "_HERE", 0)
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


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="matrices are inverted apart on Linux only")
@pytest.mark.parametrize("n", [1, 3, 700])
def test_in_a_process_of_its_own_the_numbers_are_the_same(n: int) -> None:
    block = definite(n)
    here = block.copy()
    assert lapack.invert_here(here, here.diagonal().copy())
    assert lapack.invert_apart(block) is True
    np.testing.assert_array_equal(np.triu(block), np.triu(here))
    singular = np.zeros((n, n), dtype=np.float32)
    assert lapack.invert_apart(singular) is False
    np.testing.assert_array_equal(singular, 0)


def _without_programs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "executable", "/no/such/python")


def _without_shared_memory(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(os, "memfd_create", raising=False)


def _ending_by_a_signal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lapack, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


def _failing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lapack, "_PROGRAM", "raise ImportError")


@pytest.mark.parametrize("happens", [_without_programs, _without_shared_memory, _ending_by_a_signal, _failing])
def test_where_lapack_ends_its_process_the_answer_is_found_block_by_block(
    happens: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    happens(monkeypatch)
    monkeypatch.setattr(inverse, "_HERE", 0)
    block = definite(900)
    assert lapack.invert_apart(block) is None
    expected = np.linalg.inv(block.astype(np.float64))
    assert invert(block)
    np.testing.assert_allclose(block, expected, atol=2e-6 * np.abs(expected).max(), rtol=0)
