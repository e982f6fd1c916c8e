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
    signal.signal(signal.SIGTERM, _leave)
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def announce() -> None:
        write_address(settings.data_dir, url)
        print(f"tarsia: ready on {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)

    try:
        runtime = _start(settings)
    except KeyboardInterrupt:
        sys.exit(0)
    try:
        serve_until_stopped(runtime, settings, listener, on_started=announce)
    finally:
        remove_address(settings.data_dir)
        runtime.close()


def _start(settings: Settings) -> Runtime:
    with logged_stages() as stage:
        runtime = Runtime.open(settings, stage=stage)
        try:
            write_address(settings.data_dir, None)
            runtime.warm(stage)
        except BaseException:
            remove_address(settings.data_dir)
            runtime.close()
            raise
    return runtime


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM while the models load: nobody is connected yet, so leaving in order is leaving at once."""
    raise KeyboardInterrupt
