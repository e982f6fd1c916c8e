"""`tarsia serve`: load, warm, bind, and stay until Ctrl-C or SIGTERM."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve.cli.output import stages
from serve.cli.workplace import remove_address, write_address
from serve.config import load_settings
from serve.runtime import Runtime
from serve.server import bind, serve_until_stopped


def run(flags: Mapping[str, Any], config_file: Path | None) -> None:
    settings = load_settings(flags, config_file=config_file).settings
    socket = bind(settings)
    host, port = socket.getsockname()[:2]
    url = f"http://{host}:{port}"
    try:
        with stages() as stage:
            runtime = Runtime.open(settings, stage=stage)
            try:
                runtime.warm(stage)
            except BaseException:
                runtime.close()
                raise
    except KeyboardInterrupt:
        sys.exit(0)
    try:
        write_address(settings.data_dir, url)
        print(f"tarsia: ready on {url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        serve_until_stopped(runtime, settings, socket)
    finally:
        remove_address(settings.data_dir)
        runtime.close()
