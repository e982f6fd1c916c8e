"""llama.cpp by its C interface, for benchmarks: a context that several sequences share, and its files."""

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import llama_cpp as lc
import numpy as np

from engine.registry import cache_dir, resolve

PLAIN_LAYOUT = "TARSIA_BENCH_PLAIN_LAYOUT"
"""Set where llama.cpp must not lay weights out anew: its tiles of AMX crash on some virtual machines."""
Token = tuple[int, int, int, bool]
"""(token, position, sequence, whether its logits are wanted)."""


class Llama:
    """A model of one kind of weights, with room for `sequences` of `context` tokens each."""

    def __init__(self, model: str, kind: str, sequences: int, context: int, threads: int) -> None:
        quiet()
        loading = lc.llama_model_default_params()
        loading.use_extra_bufts = PLAIN_LAYOUT not in os.environ
        self.model = lc.llama_model_load_from_file(str(model_file(model, kind)).encode(), loading)
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context * sequences, 512, 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        self.state = lc.llama_init_from_model(self.model, params)
        self.size = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))
        self._room = lc.llama_batch_init(512, 0, 1)

    def feed(self, items: list[Token]) -> None:
        room = self._room
        room.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            room.token[i], room.pos[i], room.n_seq_id[i] = token, position, 1
            room.seq_id[i][0], room.logits[i] = sequence, wanted
        if lc.llama_decode(self.state, room) != 0:
            raise RuntimeError("llama_decode failed")

    def logits(self, place: int) -> np.ndarray[Any, Any]:
        """Of the token at `place` in what was fed last: (vocab,), valid until the next."""
        return np.ctypeslib.as_array(lc.llama_get_logits_ith(self.state, place), shape=(self.size,))

    def forget(self) -> None:
        """All sequences become empty."""
        lc.llama_memory_clear(lc.llama_get_memory(self.state), False)


def model_file(model: str, kind: str) -> Path:
    """The model's own file if it is of that kind, or one requantised from it, kept in the cache folder."""
    own = resolve(model).path
    made = cache_dir() / "bench" / f"{model}.{kind}.gguf"
    if (model, kind) == ("smollm2-135m-instruct", "Q4_1"):
        return own
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    return requantised(own, getattr(lc, f"LLAMA_FTYPE_{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"), made)


def requantised(source: Path, file_type: int, target: Path) -> Path:
    """`target`, made by llama.cpp's converter from `source`; `file_type` is one of LLAMA_FTYPE."""
    params = lc.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = file_type, True
    begun = target.with_suffix(".part")
    if lc.llama_model_quantize(str(source).encode(), str(begun).encode(), params) != 0:
        raise RuntimeError(f"llama.cpp could not convert {source}")
    return begun.rename(target)


def quiet() -> None:
    """Sends llama.cpp's log nowhere."""
    lc.llama_log_set(_silent(), ctypes.c_void_p(None))


@functools.cache
def _silent() -> Any:
    """A sink for llama.cpp's log, which must outlive the library's use of it."""
    return lc.llama_log_callback(lambda *_: None)
