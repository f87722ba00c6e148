"""Weights on disk: any safetensors reader reads them, large ones are used where the file is mapped."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recvae.errors import UsageError
from recvae.storage.arrays import ALIGNMENT, read_weights, write_weights

DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
WEIGHTS = st.dictionaries(
    st.text("ab./é", min_size=1, max_size=5),
    DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=9))),
    max_size=5,
)


def is_mapped(array: np.ndarray, path: Path) -> bool:
    """Say whether the system has this file at the address of an array."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line.endswith(str(path))
    return False


@given(weights=WEIGHTS)
def test_what_is_written_is_read_by_us_and_by_the_library(
    weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path, weights)
    for found in (read_weights(path), safetensors.numpy.load_file(path)):
        assert sorted(found) == sorted(weights)
        for name, array in weights.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)


def test_large_ones_lie_aligned_in_the_mapped_file_and_odd_ones_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = {"a.bias": np.ones(3, np.float32), "b.weight": np.ones((40, 16), np.float32), "c": np.ones((8, 16))}
    write_weights(path, weights)
    found = read_weights(path)
    assert all(array.__array_interface__["data"][0] % ALIGNMENT == 0 for array in found.values())
    if Path("/proc/self/maps").exists():
        assert is_mapped(found["b.weight"], path) and is_mapped(found["c"], path)


def test_what_is_copied_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"w": np.ones((1000, 16), np.float32)})
    found = read_weights(path, mapped=False)["w"]
    path.write_bytes(b"")
    assert found.sum() == 16_000


def test_files_of_the_library_are_read_too(tmp_path: Path) -> None:
    weights = {"a": np.ones(3, np.float32), "b": np.arange(32, dtype=np.float32).reshape(2, 16)}
    safetensors.numpy.save_file(weights, tmp_path / "w.safetensors")
    for name, array in read_weights(tmp_path / "w.safetensors").items():
        np.testing.assert_array_equal(array, weights[name])


def test_what_is_mapped_stays_while_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"w": np.ones((1000, 16), np.float32)})
    found = read_weights(path)["w"]
    write_weights(path, {"w": np.zeros((1000, 16), np.float32)})
    assert found.sum() == 16_000


@pytest.mark.parametrize("dtype", ["uint16", ">f4", "complex64", "object"])
def test_types_that_the_file_is_not_written_in_are_refused_before_anything_is(dtype: str, tmp_path: Path) -> None:
    weights = {"a": np.ones(3, np.float32), "half": np.ones(3, dtype)}
    with pytest.raises(
        UsageError, match=r"got half of type .*, expected one of float16, float32, .*; convert it with astype"
    ):
        write_weights(tmp_path / "w.safetensors", weights)
    assert not list(tmp_path.iterdir())
