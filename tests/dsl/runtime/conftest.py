"""Each test of the runtime has a cache of its own: what is tuned or compiled in one never meets another."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("dsl-cache")
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(folder))
    for name in ("TARSIA_DSL_BACKEND", "TARSIA_DSL_AUTOTUNE", "TARSIA_DSL_PRINT"):
        monkeypatch.delenv(name, raising=False)
    return folder
