"""Kernels compiled by these tests are kept for the run, not in the user's cache."""

import pytest


@pytest.fixture(scope="session")
def op_kernels(tmp_path_factory):
    return tmp_path_factory.mktemp("op-kernels")


@pytest.fixture(autouse=True)
def own_kernel_cache(op_kernels, monkeypatch):
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(op_kernels))
