"""Simulated programs are built in a folder of the test run, so that no test leans on an older build."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def builds_of_this_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TARSIA_DSL_CACHE", str(tmp_path_factory.mktemp("dsl")))
        yield
