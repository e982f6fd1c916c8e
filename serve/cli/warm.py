"""`tarsia models warm`: compile what serving a model needs, once, before anybody waits for it."""

import time
from pathlib import Path

from engine import Engine
from engine.compile_cache import drop_damaged, enable_compile_cache
from engine.registry import resolve
from engine.weights.checkpoint import checkpoint_kind
from serve.cli.output import logged_stages, print_json
from serve.config import Settings, load_settings


def run(model: str, config_file: Path | None, *, as_json: bool) -> None:
    """Loads and warms the model as `tarsia serve` would with these settings, chats up to `max_context`."""
    settings = load_settings({}, config_file=config_file).settings
    started, programs = time.perf_counter(), 0
    kept = enable_compile_cache()
    if kept is not None:
        drop_damaged(kept)
    with logged_stages() as stage:
        stage(f"load {model}", 0, 1)
        engine = _load(model, settings)
        stage(f"load {model}", 1, 1)

        def report(done: int, total: int) -> None:
            nonlocal programs
            programs = total
            stage(f"warm {engine.name}", done, total)

        try:
            engine.warm(report, settings.max_context)
        finally:
            engine.close()
    seconds = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "model": engine.name,
                "programs": programs,
                "seconds": seconds,
                "kept": str(kept) if kept else None,
            }
        )
        return
    where = f"kept in {kept}" if kept else "not kept: the cache folder is not ours alone"
    print(f"{engine.name}: {programs} programs ready after {seconds:.1f} s, {where}")


def _load(model: str, settings: Settings) -> Engine:
    chats = checkpoint_kind(resolve(model).path) == "decoder"
    return Engine.load(
        model,
        quant=settings.quant if chats else None,
        max_slots=settings.max_slots,
        max_context=settings.max_context,
        max_queue=settings.max_queue,
        kv_bytes=settings.kv_bytes,
        speculate=settings.speculate,
    )
