"""A small model for every test of a sweep, and a cache of its own."""

import pytest

from tests.exploration.sweeps import save_model


@pytest.fixture
def small(tmp_path):
    """Return the path of a small model's config.json."""
    return save_model(tmp_path)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep results out of the user's cache."""
    monkeypatch.setenv("TERN_HW_CACHE", str(tmp_path / "cache"))
