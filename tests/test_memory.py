"""Amounts of memory: read, written, found out, and refused before anything is begun."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recvae.compute import memory
from recvae.compute.memory import available_bytes, check_memory, human_bytes, parse_bytes
from recvae.errors import DataError, MemoryLimitError, UsageError
from recvae.models import ALS, EASE, EDLAE, IALS, VASP, Model

GB = 10**9
MEMINFO = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    8000000 kB\nBuffers: 1 kB\n"
ITEMS_TOO_MANY = 10_000_000  # items x items of which no machine holds


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1", 1),
        ("8GB", 8 * GB),
        ("8gb", 8 * GB),
        ("8G", 8 * GB),
        (" 8 GB ", 8 * GB),
        ("1.5g", 1_500_000_000),
        ("0.5kB", 500),
        ("500 MiB", 500 * 2**20),
        ("2Ki", 2048),
        ("3TiB", 3 * 2**40),
        ("2T", 2 * 10**12),
        ("64 b", 64),
        ("10k", 10_000),
    ],
)
def test_an_amount_of_memory_is_read_with_its_unit(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "GB",
        "0",
        "0GB",
        "0.4",
        "-1GB",
        "+1GB",
        "1e9",
        "8 G B",
        "8i",
        "8XB",
        "8GBB",
        "8,5GB",
        ".5GB",
        "nan",
        "8!",
    ],
)
def test_what_is_no_amount_of_memory_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="for an amount of memory, expected a number and a unit, such as 8GB or 500M"):
        parse_bytes(text)


@given(st.text(alphabet="0123456789. kmgtibKMGTIB-+e", max_size=12))
def test_any_text_is_an_amount_above_0_or_refused(text: str) -> None:
    try:
        assert parse_bytes(text) > 0
    except UsageError as error:
        assert repr(text)[1:-1] in str(error) or text in str(error)


def test_a_number_beyond_all_floats_is_an_amount_or_refused() -> None:
    with contextlib.suppress(UsageError):
        assert parse_bytes("9" * 400) > 0


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_550_000, "1.6 MB"),
        (1_600_000_000, "1.6 GB"),
        (2.5e12, "2.5 TB"),
        (1.6e15, "1,600.0 TB"),
    ],
)
def test_an_amount_is_written_for_people(n_bytes: float, text: str) -> None:
    assert human_bytes(n_bytes) == text


def test_a_thousand_of_a_unit_is_one_of_the_next() -> None:
    assert human_bytes(999_960) == "1.0 MB"


@given(st.integers(1, 10**15))
def test_what_is_written_for_people_is_read_back_nearly_the_same(n_bytes: int) -> None:
    assert parse_bytes(human_bytes(n_bytes).replace(",", "")) == pytest.approx(n_bytes, rel=0.06)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands for /proc and /sys: 16 GB, 8.192 GB of them available, no container."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_total_bytes", lambda: 16 * GB)
    return tmp_path


def container(machine: Path, limit: str, used: str = "0", stat: str = "") -> None:
    for name, content in (("memory.max", limit), ("memory.current", used), ("memory.stat", stat)):
        (machine / "cgroup" / name).write_text(content)


def test_without_a_container_what_the_kernel_calls_available_is_free(machine: Path) -> None:
    assert available_bytes() == 8_000_000 * 1024


def test_where_the_kernel_does_not_say_all_memory_counts(machine: Path) -> None:
    (machine / "meminfo").write_text("MemTotal: 16000000 kB\n")
    assert available_bytes() == 16 * GB
    (machine / "meminfo").unlink()
    assert available_bytes() == 16 * GB


def test_a_container_leaves_its_limit_less_what_is_used_and_cannot_be_given_back(machine: Path) -> None:
    container(machine, f"{4 * GB}\n", f"{3 * GB}\n", f"anon {GB}\nactive_file 5\ninactive_file {2 * GB}\nslab 7\n")
    assert available_bytes() == 3 * GB
    container(machine, f"{4 * GB}\n", f"{3 * GB}\n", "anon 5\nnot_inactive_file 9\n")
    assert available_bytes() == GB


def test_a_container_larger_than_the_machine_does_not_add_memory(machine: Path) -> None:
    container(machine, f"{64 * GB}\n")
    assert available_bytes() == 8_000_000 * 1024


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""},
        {"memory.max": "5\n"},
        {"memory.max": "much\n", "memory.current": "5\n", "memory.stat": ""},
        {"memory.max": "5\n", "memory.current": "\n", "memory.stat": ""},
    ],
    ids=["no limit", "half of the files", "a word", "nothing"],
)
def test_a_container_that_sets_or_says_nothing_does_not_count(files: dict[str, str], machine: Path) -> None:
    for name, content in files.items():
        (machine / "cgroup" / name).write_text(content)
    assert available_bytes() == 8_000_000 * 1024


def test_this_machine_has_some_memory_and_not_more_than_all() -> None:
    assert 0 < available_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_fits_is_let_through_to_the_last_byte(machine: Path) -> None:
    check_memory(100, 100, "it", "do without")
    check_memory(8_000_000 * 1024, None, "it", "do without")


def test_a_refusal_names_both_amounts_whose_limit_it_is_and_what_to_do(machine: Path) -> None:
    with pytest.raises(MemoryLimitError, match=r"^it needs 2\.0 kB of memory, 100 B is allowed by --max-memory; do w"):
        check_memory(2000, 100, "it", "do without")
    with pytest.raises(MemoryLimitError, match=r"^it needs 9\.0 GB of memory, 8\.2 GB this machine has free; do wit"):
        check_memory(9 * GB, None, "it", "do without")
    assert issubclass(MemoryLimitError, MemoryError)


@pytest.mark.parametrize(
    ("model", "needed", "instead"),
    [
        (EASE(), "800.0 TB", "raise --max-memory, leave out rare items .*or use sansa, elsa, multvae or als, wh"),
        (EDLAE(), "800.0 TB", "raise --max-memory, leave out rare items .*or use sansa, elsa, multvae or als, wh"),
        (VASP(), "2,000.2 TB", "leave out rare items .*recvae or multvae, wh"),
    ],
    ids=lambda value: value.name if isinstance(value, Model) else "",
)
def test_models_with_weights_from_item_to_item_refuse_too_many_items(
    model: Any, needed: str, instead: str, machine: Path
) -> None:
    batches = " in batches of 2 users" if isinstance(model, VASP) else ""
    said = rf"{model.name} on 10,000,000 items{batches} needs {needed} of memory, 8\.2 GB this machine has free; "
    with pytest.raises(MemoryLimitError, match=said + instead):
        model.fit(sp.csr_matrix((2, ITEMS_TOO_MANY)))
    assert model.n_items_ == 0


@pytest.mark.parametrize("model", [EASE(), EDLAE(), VASP(hidden_dim=4, latent_dim=2, epochs=1)], ids=lambda m: m.name)
def test_the_limit_that_is_set_counts_instead_of_the_machine(
    model: Any, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_total_bytes", lambda: 1)  # nothing fits
    train = sp.csr_matrix([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    limit = model.needs(*train.shape, train.nnz).training
    assert model.fit(train, max_memory=limit).n_items_ == 3
    with pytest.raises(MemoryLimitError, match=r"(83 B|\d\.\d kB) is allowed by --max-memory"):
        model.fit(train, max_memory=limit - 1)
    assert model.n_items_ == 3, "what was fitted before is still there"


@pytest.mark.parametrize("model", [ALS(factors=400), IALS(factors=400)], ids=lambda model: model.name)
@pytest.mark.parametrize("limit", [320_000_000, 1_000_000_000])
def test_a_factorisation_says_how_many_factors_fit(model: Any, limit: int) -> None:
    size = (100_000, 200_000, 10_000_000)
    said = rf"^{model.name} on 200,000 items with factors=400 needs 1\.\d GB .*; raise --max-memory to 1\.\d+GB, "
    with pytest.raises(MemoryLimitError, match=said + r"set factors=\d+, or leave out rare items") as refused:
        model.check_memory(*size, max_memory=limit)
    most = int(str(refused.value).split("set factors=")[1].split(",")[0])
    assert replace(model, factors=most).needs(*size).training <= limit
    assert replace(model, factors=most + 1).needs(*size).training > limit
    replace(model, factors=most).check_memory(*size, max_memory=limit)


def test_where_not_even_one_factor_fits_none_is_named(machine: Path) -> None:
    size = (100_000, 200_000, 10_000_000)
    with pytest.raises(MemoryLimitError, match=r"; raise --max-memory to 1\.8GB, or leave out rare items"):
        IALS(factors=400).check_memory(*size, max_memory=1000)
    with pytest.raises(MemoryLimitError, match=r"8\.2 GB this machine has free; set factors=\d+, or leave out"):
        IALS(factors=4000).check_memory(*size)


def test_a_factorisation_on_a_gpu_must_fit_there_and_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    size, gpu = (100_000, 200_000, 10_000_000), torch.device("cuda", 0)
    free = {"cuda": 10**12, "cpu": 10**12}
    monkeypatch.setattr(memory, "free_on", lambda device: free[device.type])
    needs = IALS(factors=400).needs(*size, on_gpu=True)
    IALS(factors=400).check_memory(*size, gpu)
    for place, n_bytes, name in (("cuda", needs.training, "cuda:0"), ("cpu", needs.host, "this machine")):
        with monkeypatch.context() as patched:
            patched.setitem(free, place, n_bytes - 1)
            with pytest.raises(MemoryLimitError, match=rf"{name} has free; set factors=399, or leave out"):
                IALS(factors=400).check_memory(*size, gpu)


def test_data_that_are_no_matrix_are_refused_before_memory_is_counted() -> None:
    train: Any = [[1, 0], [0, 1]]
    with pytest.raises(DataError, match="got list for the training interactions, expected a scipy sparse matrix"):
        VASP().fit(train)
