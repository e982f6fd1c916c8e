"""A cache of compiled kernels for the session, so that tests never meet the user's."""

import pytest


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def own_cache(kernel_cache, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(kernel_cache))
