"""Which server `ask` and `ingest` turn to, by the address that it left in the data folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import TarsiaError
from serve.cli.workplace import _server_url, remove_address, write_address
from tests.serve.cli.conftest import Tarsia


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://127.0.0.9:1", "http://[::1]:8080"])
def test_a_loopback_address_is_taken(tmp_path: Path, url: str) -> None:
    write_address(tmp_path, url)
    assert _server_url(tmp_path) == url
    remove_address(tmp_path)
    assert _server_url(tmp_path) is None


@pytest.mark.parametrize("url", ["http://10.0.0.1:80", "https://127.0.0.1:80", "http://evil.example", "x"])
def test_documents_are_never_sent_elsewhere(tmp_path: Path, url: str) -> None:
    write_address(tmp_path, url)
    assert _server_url(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_broken_address_file_is_no_server(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    assert _server_url(tmp_path) is None


def test_a_server_that_is_still_starting_is_said_so(tmp_path: Path) -> None:
    write_address(tmp_path, None)
    with pytest.raises(TarsiaError, match="still starting; try again"):
        _server_url(tmp_path)


def test_on_ipv6_and_past_a_proxy_the_server_is_reached(tarsia: Tarsia, tmp_path: Path) -> None:
    arguments = ["serve", "--host", "::1", "--port", "0", "--data-dir", tmp_path / "data"]
    server = subprocess.Popen(
        [Path(sys.executable).with_name("tarsia"), *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        assert any("ready on http://[::1]:" in line for line in server.stderr)
        (tmp_path / "fact.txt").write_text("The capital of Zed is Qux.\n")
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": ""}
        ran = tarsia(
            "ask",
            "What is the capital of Zed?",
            "fact.txt",
            "--json",
            "--no-generate",
            "--data-dir",
            tmp_path / "data",
            environ=proxy,
        )
        assert ran.json["citations"][0]["document"] == "fact.txt"
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0
