"""The cache folder: one for the tools' builds and the models, where the environment says."""

import pytest

import quant.cache
import tern_hw.flows.cache
from tern_hw.cache import CACHE_VARIABLE, cache_root


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "tern-hw"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "tern-hw"


@pytest.mark.parametrize("make", ["model", "build"])
def test_models_and_builds_lie_in_it(monkeypatch, tmp_path, make):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    if make == "model":
        made = quant.cache.cached_folder("thing", lambda folder: None)
    else:
        made = tern_hw.flows.cache.cached("kind", ["part"], lambda folder: None)
    assert made.is_relative_to(cache_root())
