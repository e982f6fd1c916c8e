"""`tarsia serve`: bind, load, warm, and stay until Ctrl-C or SIGTERM."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from serve.cli.output import logged_stages
from serve.cli.workplace import remove_address, write_address
from serve.config import Settings, load_settings
from serve.runtime import Runtime
from serve.server import bind, serve_until_stopped


def run(flags: Mapping[str, Any], config_file: Path | None) -> None:
    settings = load_settings(flags, config_file=config_file).settings
    leaving = _Leaving()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leaving)
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def announce() -> None:
        write_address(settings.data_dir, url)
        print(f"tarsia: ready on {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)

    try:
        runtime = _start(settings, leaving)
    except KeyboardInterrupt:
        sys.exit(0)
    try:
        serve_until_stopped(runtime, settings, listener, on_started=announce)
    finally:
        remove_address(settings.data_dir)
        runtime.close()


def _start(settings: Settings, leaving: "_Leaving") -> Runtime:
    with logged_stages() as stage:
        runtime = Runtime.open(settings, stage=stage)
        try:
            leaving.check()
            write_address(settings.data_dir, None)
            runtime.warm(stage)
            leaving.check()
        except BaseException:
            remove_address(settings.data_dir)
            runtime.close()
            raise
    return runtime


class _Leaving:
    """A signal while the models load: nobody is connected yet, so leaving in order is leaving at once.

    It may arrive inside a finaliser or a callback, where Python passes over exceptions: it is remembered.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, signum: int, frame: FrameType | None) -> NoReturn:
        self._asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if a signal has come."""
        if self._asked:
            raise KeyboardInterrupt
