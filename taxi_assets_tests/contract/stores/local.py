"""The lake in a local folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from taxi_assets.storage.lake.local_lake import LocalLake
from taxi_assets_tests.contract.stores import LakeBackend


def fail(*_args: object, **_named: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture
def local_lake(tmp_path: Path) -> LakeBackend:
    def put(key: str) -> None:
        file = tmp_path / "lake" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    return LakeBackend(
        open=partial(LocalLake, folder=str(tmp_path / "lake")),
        put=put,
        faults={
            "flushing the file": lambda monkeypatch: monkeypatch.setattr(os, "fsync", fail),
            "the rename": lambda monkeypatch: monkeypatch.setattr(Path, "replace", fail),
        },
    )
