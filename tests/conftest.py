"""What several test modules share."""

import contextlib
import functools
import io
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from processes import known_to

from recvae.datasets.dataset import Dataset
from recvae.datasets.events import Events
from recvae.datasets.preparation import Protocol, prepare_synthetic
from recvae.interactions import HeldOut
from recvae.models import MODELS

# The same examples in every run; a model's first call may take longer than hypothesis likes.
hypothesis.settings.register_profile("recvae", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("recvae")
torch.set_num_threads(1)  # models this small only wait for further threads
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell ignores for what it starts in the background


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what is large out wherever slow tests are left out."""
    for item in items:
        if item.get_closest_marker("large"):
            item.add_marker("slow")


BLOCKS, BLOCK_ITEMS = 4, 8
SMALL: dict[str, dict[str, Any]] = {  # a model not listed is tested with its defaults
    "multvae": {"hidden_dims": (16,), "latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "multdae": {"latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "recvae": {"hidden_dim": 16, "latent_dim": 8, "epochs": 12, "batch_size": 10, "learning_rate": 0.01},
    "hvamp": {"hidden_dim": 16, "latent_dim": 8, "pseudo_inputs": 6, "epochs": 25, "batch_size": 10}
    | {"learning_rate": 0.01},
    "vasp": {"hidden_dim": 16, "latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "ae": {"latent_dim": 8, "epochs": 25, "batch_size": 10, "learning_rate": 0.01},
    "elsa": {"latent_dim": 8, "epochs": 25, "batch_size": 10},
    "ease": {"l2": 5.0},
    "edlae": {"l2": 5.0},
    "sansa": {"l2": 5.0, "entries": 12},
    "blend": {"weight": 0.7},
    "als": {"factors": 4, "regularization": 0.1, "iterations": 8},
    "ials": {"factors": 4, "iterations": 8},
}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real MovieLens data, which may not be passed on with this project, or skip."""
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("RECVAE_TEST_DATA") or checkout.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real MovieLens data at {folder}; set RECVAE_TEST_DATA to a folder with ml-1m/ and so on")
    return folder


@pytest.fixture(scope="session")
def random_log() -> Callable[..., Events]:
    """Return a function that makes up a log: every pair once, rows in random order, many equal times."""

    def make(seed: int = 0, n_users: int = 40, n_items: int = 30, n_events: int = 500, words: bool = False) -> Events:
        generator = np.random.default_rng(seed)
        pairs = generator.choice(n_users * n_items, size=n_events, replace=False)  # as user * n_items + item
        users, items = 7 * (pairs // n_items) + 3, 1000 - pairs % n_items
        return Events.from_columns(
            [f"u{user}" for user in users] if words else users,
            [f"film {item}" for item in items] if words else items,
            generator.integers(1, 6, size=n_events).astype(np.float32),
            generator.integers(10**9, 10**9 + n_events // 3, size=n_events),
        )

    return make


@pytest.fixture(scope="session", params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    """Return the name of each registered model in turn: whatever is listed is tested."""
    return request.param


@pytest.fixture(scope="session")
def small_settings() -> Callable[[str], dict[str, Any]]:
    """Return a function from a model's name to hyperparameters that let it be fitted in a moment."""
    return lambda name: {**SMALL.get(name, {}), **({"epochs": 3} if "epochs" in SMALL.get(name, {}) else {})}


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Return a function from a model's name to a model that is small enough to fit in a moment."""
    classes: dict[str, Any] = dict(MODELS)

    def make(name: str, **changes: Any) -> Any:
        settings: dict[str, Any] = SMALL.get(name, {}) | changes
        if MODELS[name].roles:  # made of two other models, to be fitted with it
            settings = {"parts": dict(zip(MODELS[name].roles, (make("multdae"), make("ease")), strict=True))} | settings
        return classes[name](**settings)

    return make


@pytest.fixture(scope="session")
def blocks() -> Dataset:
    """Return 4 groups of 8 items: who has items of one group should be recommended the rest of it, and no other.

    Training users have 5 or 6 items of their group, held-out users 3; every fifth item has no title.
    """
    rng = np.random.default_rng(7)
    n_items = BLOCKS * BLOCK_ITEMS

    def users(per_block: int, n: int) -> sp.csr_matrix:
        dense = np.zeros((BLOCKS * per_block, n_items))
        for user, row in enumerate(dense):
            row[user % BLOCKS * BLOCK_ITEMS + rng.choice(BLOCK_ITEMS, n, replace=False)] = 1
        return sp.csr_matrix(dense, dtype=np.float32)

    def heldout(per_block: int) -> HeldOut:
        fold_in = users(per_block, 3)
        groups = np.kron(np.eye(BLOCKS), np.ones(BLOCK_ITEMS))[np.arange(fold_in.shape[0]) % BLOCKS]
        return HeldOut(fold_in=fold_in, targets=sp.csr_matrix(groups - fold_in.toarray(), dtype=np.float32))

    return Dataset(
        train=sp.csr_matrix(sp.vstack([users(12, 5), users(13, 6)])),
        validation=heldout(5),
        test=heldout(3),
        item_ids=1000 - 10 * np.arange(n_items),  # neither ascending nor near the columns
        titles=np.array([None if item % 5 == 0 else f"Title {item}" for item in range(n_items)], dtype=object),
        manifest={"name": "blocks", "fingerprint": "0" * 64, "protocol": {"split": "none"}},
    )


@pytest.fixture(scope="session")
def fitted(make_model: Callable[..., Any], blocks: Dataset) -> Callable[[str], Any]:
    """Return a function from a model's name to that model fitted on the blocks, once; do not change it."""
    return functools.cache(lambda name: make_model(name).fit(blocks.train, blocks.validation, device="cpu"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that has a folder written, once for all processes that run tests; do not change it."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"
    shared.mkdir(exist_ok=True)

    def make(name: str, write: Callable[[Path], object]) -> Path:
        written = shared / f"{name}.written"
        with (shared / f"{name}.lock").open("w") as lock:
            if os.name == "posix":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            if not written.exists():
                write(shared / name)
                written.touch()
        return shared / name

    return make


@pytest.fixture(scope="session")
def bundle_folder(fitted: Callable[[str], Any], blocks: Dataset, once: Callable[..., Path]) -> Any:
    """Return a function from a model's name to the folder of its bundle; do not change it."""
    from recvae.recommenders.recommender import Recommender

    return functools.cache(lambda name: once(f"bundle-{name}", Recommender(fitted(name), blocks).save))


@pytest.fixture(scope="session")
def exported(bundle_folder: Callable[[str], Path], blocks: Dataset, once: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function from a model's name and a format to the folder of its export, made once; do not change it."""
    from recvae.exports.writing import export

    @functools.cache
    def make(name: str, format: str = "onnx", quantize: str | None = None) -> Path:
        how: dict[str, Any] = {"format": format, "quantize": quantize, "held_out": blocks.validation}
        kind = format if quantize is None else f"{format}-{quantize}"
        return once(f"{kind}-{name}", lambda home: export(bundle_folder(name), output=home / kind, **how)) / kind

    return make


class Said(NamedTuple):
    """What the command said, and the code it ended with."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def command() -> Callable[..., Said]:
    """Return a function that runs `recvae` in this process, as if its arguments had been typed in this folder."""
    from recvae_cli.app import main

    def run(*arguments: object) -> Said:
        typed, handler = sys.argv, signal.getsignal(signal.SIGTERM)
        out, err, code = io.StringIO(), io.StringIO(), 0
        sys.argv = ["recvae", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = typed
            signal.signal(signal.SIGTERM, handler)
        return Said(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def program() -> list[str]:
    """Return what starts `recvae` as a process of its own: the installed script, or the same in Python.

    Give it `OMP_NUM_THREADS=1`, as `shell` does: models this small only wait for further threads.
    """
    script = shutil.which("recvae", path=Path(sys.executable).parent)
    return [script] if script else [sys.executable, "-c", "from recvae_cli.app import main; main()"]


# What most starts of `recvae` spend their time on.
LARGE = (
    *("torch", "torch._dynamo", "scipy.sparse", "scipy.linalg", "pandas", "pyarrow.parquet", "duckdb"),
    *("safetensors.torch", "pydantic", "typer", "rich.table", "requests"),
)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the path of a `python` that starts in a moment, since what it imports of others is there: see warm.py."""
    if not hasattr(os, "pidfd_open"):
        yield sys.executable
        return
    warm, name = str(Path(__file__).with_name("warm.py")), f"recvae-tests-{os.getpid()}"
    script = tmp_path_factory.mktemp("warm") / "python"
    script.write_text(f"""#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", warm, name])} "$@"\n""")
    script.chmod(0o755)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, warm, "serve", name, *LARGE], env=one_thread, **pipes) as serving:
        assert serving.stdout is not None
        serving.stdout.read()
        yield str(script)


@pytest.fixture(scope="session")
def warm_program(warm_python: str) -> list[str]:
    """Return what starts `recvae` as a process of its own in a moment."""
    return [warm_python, "-c", "from recvae_cli.app import main; main()"]


@pytest.fixture(scope="session")
def shell(program: list[str]) -> Callable[..., Said]:
    """Return a function that runs `recvae` as a process of its own in this folder."""

    def run(*arguments: object, **environment: str) -> Said:
        words = [*program, *map(str, arguments)]
        done = subprocess.run(
            words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


class Ended(NamedTuple):
    """How one of several processes has ended, and what it returned."""

    code: int
    out: str
    err: str
    found: Any


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Ended]]:
    """Return a function that runs another one in several processes, forked from this one, as torchrun starts them.

    They know of each other by the environment alone, and are given their rank..
    """

    def run(n: int, work: Callable[[int], Any], seconds: float = 600, **environment: str) -> list[Ended]:
        folder, forks = tmp_path_factory.mktemp("several"), multiprocessing.get_context("fork")
        known = known_to(n)

        def be(rank: int, answer: Any) -> None:
            os.environ |= known[rank] | environment
            with (folder / f"out{rank}").open("w") as out, (folder / f"err{rank}").open("w") as err:
                sys.stdout, sys.stderr = out, err
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                try:
                    answer.send(work(rank))
                except BaseException:
                    traceback.print_exc()
                    raise

        ends = []
        for rank in range(n):
            mine, theirs = forks.Pipe(duplex=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks of a process with threads
                process = forks.Process(target=be, args=(rank, theirs))
                process.start()
            theirs.close()
            ends.append((process, mine))
        ended, deadline = [], time.monotonic() + seconds
        for rank, (process, mine) in enumerate(ends):
            found = None
            if mine.poll(max(0.0, deadline - time.monotonic())):
                with contextlib.suppress(EOFError):
                    found = mine.recv()
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
            out, err = ((folder / f"{name}{rank}").read_text() for name in ("out", "err"))
            ended.append(Ended(process.exitcode or 0, out, err, found))
        return ended

    return run


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder to work in; nothing outside decides where data sets are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECVAE_DATA", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small data set of invented films; do not change it."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    prepare_synthetic(Protocol(), name="toy", n_users=200, n_items=120, n_events=6000).dataset.save(folder)
    return folder


@pytest.fixture
def toy(workplace: Path, toy_data: Path) -> Path:
    """Return a copy of that data set, `data/toy` of this folder."""
    return shutil.copytree(toy_data, workplace / "data" / "toy")
