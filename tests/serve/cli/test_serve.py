"""Starting and stopping `tarsia serve`, as a process manager does it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.cli.conftest import Tarsia

TARSIA = Path(sys.executable).with_name("tarsia")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_models_load_ends_the_server_in_order(
    number: signal.Signals, tmp_path: Path, smollm2_path: Path, minilm_path: Path
) -> None:
    server = subprocess.Popen(
        [TARSIA, "serve", "--port", "0", "--data-dir", tmp_path / "data"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "load smollm2" in line:
            break
    server.send_signal(number)
    _, rest = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in rest
    assert not (tmp_path / "data" / "server.json").exists()


def test_a_port_in_use_is_said_before_anything_is_loaded(tarsia: Tarsia) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ran = tarsia("serve", "--port", str(other.getsockname()[1]))
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
