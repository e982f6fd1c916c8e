"""`tarsia serve` in a process of its own, on a free port and an empty data folder."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

READY = re.compile(r"ready on (http://\S+)")
START_SECONDS = 240


class ServerProcess:
    """A running server. `url` is its address; `log` gives what it has written so far."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("tarsia"), "serve", "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "TARSIA_DATA_DIR": str(folder / "data"), **environ},
            )
        self.url = self._wait_until_ready()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """The exit code; the process is killed, and the test fails, if it takes longer."""
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := READY.search(self.log()):
                return found[1]
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the server did not become ready:\n{self.log()}")
