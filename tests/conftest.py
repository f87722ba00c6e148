"""What several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real MovieLens data, which may not be passed on with this project, or skip."""
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("RECVAE_TEST_DATA") or checkout.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real MovieLens data at {folder}; set RECVAE_TEST_DATA to a folder with ml-1m/ and so on")
    return folder
