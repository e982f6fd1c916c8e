import subprocess
import sys

MODULES = (
    "engine.ops.attention, engine.ops.distance, engine.ops.jit, engine.ops.linear, engine.ops.topk, "
    "engine.models.decoder, engine.models.encoder, engine.weights, engine.embeddings.embedder"
)


def test_importing_the_models_starts_no_device_and_no_thread():
    code = (
        f"import {MODULES}\nimport threading\nfrom jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\nassert threading.active_count() == 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
