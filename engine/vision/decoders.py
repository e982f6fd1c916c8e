"""Decoding processes that are kept for the next image, and what becomes of one that hangs or dies.

Decoders work on untrusted bytes: they may crash, hang or eat memory, and a Python thread cannot be killed.
Starting a process for each image would take far longer than most images do, so they stay.
"""

import atexit
import dataclasses
import json
import os
import subprocess
import sys
import threading
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

import numpy as np

import engine.errors
from engine.errors import DamagedImage, ImageError, ImageTooLarge
from engine.vision.decode import Color, Pixels
from engine.vision.limits import ImageLimits

MOST = min(4, os.cpu_count() or 1)
"""Decoding processes at once; more callers wait."""
_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.insert(0, sys.argv[1]); from engine.vision.worker import main; main()"
_REFUSALS: dict[str, type[ImageError]] = {
    name: getattr(engine.errors, name) for name in ("DamagedImage", "ImageTooLarge", "UnsupportedImage")
}

_places = threading.BoundedSemaphore(MOST)
_idle: list["_Decoder"] = []
_lock = threading.Lock()


def decode_apart(name: str, data: bytes, limits: ImageLimits, background: Color) -> Pixels:
    """`decode` in a process of its own; see there. Thread-safe; errors are of the ImageError family."""
    with _places:
        decoder = _taken()
        try:
            return decoder.decode(name, data, limits, background)
        except _Gone:
            # It may have been ended by others (the system short of memory) since its last image.
            decoder.close()
            decoder = _Decoder()
            try:
                return decoder.decode(name, data, limits, background)
            except _Gone as gone:
                reason = f"cannot be decoded: its decoder stopped with status {gone.status}"
                raise DamagedImage(name, reason) from None
        finally:
            _left(decoder)


class _Gone(Exception):
    """A decoding process that ended without an answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def close_decoders() -> None:
    """Ends the idle processes; the next image starts another."""
    with _lock:
        ending = _idle[:]
        _idle.clear()
    for decoder in ending:
        decoder.close()


atexit.register(close_decoders)


def _taken() -> "_Decoder":
    with _lock:
        if _idle:
            return _idle.pop()
    return _Decoder()


def _left(decoder: "_Decoder") -> None:
    if decoder.usable:
        with _lock:
            _idle.append(decoder)
    else:
        decoder.close()


class _Decoder:
    """One process; `usable` is false from the start of an image until its whole answer is read."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-X", "utf8", "-c", _START, _ROOT]
        # A BLAS that made its threads' stacks would use up the address space that the process is to have.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.usable = True

    def decode(self, name: str, data: bytes, limits: ImageLimits, background: Color) -> Pixels:
        self.usable = False
        late = threading.Event()
        timer = threading.Timer(limits.max_seconds, self._stop, (late,))
        timer.start()
        try:
            return self._exchange(name, data, limits, background)
        except (OSError, ValueError):
            if late.is_set():
                raise ImageTooLarge(name, f"takes longer than {limits.max_seconds:g} s to decode") from None
            self._process.kill()
            raise _Gone(self._process.wait()) from None
        finally:
            timer.cancel()

    def _exchange(self, name: str, data: bytes, limits: ImageLimits, background: Color) -> Pixels:
        """Raises OSError or ValueError when the process goes away, ImageError for what it answers."""
        requests, replies = cast(IO[bytes], self._process.stdin), cast(BufferedReader, self._process.stdout)
        header = {"size": len(data), "background": background, "limits": dataclasses.asdict(limits)}
        requests.write(json.dumps(header).encode() + b"\n")
        requests.write(data)
        requests.flush()
        told = json.loads(replies.readline())
        if "error" in told:
            self.usable = True
            raise _REFUSALS.get(told["error"], DamagedImage)(name, str(told["reason"]))
        pixels = np.empty((told["height"], told["width"], 3), np.uint8)
        if replies.readinto(pixels.data.cast("B")) != pixels.nbytes:
            raise ValueError("the pixels end early")
        self.usable = True
        return pixels

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # What was left to write has no reader any more.
