"""The decoding process: reads images from stdin one after another until it ends, writes pixels to stdout.

A request is one line of JSON (size, background, limits) and then `size` bytes of an image file.
A reply is one line of JSON, {"height", "width"} and then their pixels as RGB, or {"error", "reason"}.
"""

import json
import sys
from typing import Any, BinaryIO

from engine.process_limits import limit_memory, limit_processor_time
from engine.vision.decode import Pixels, Undecodable, decode, too_much_memory
from engine.vision.limits import ImageLimits


def main() -> None:
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        header = json.loads(line)
        answer(replies, header, requests.read(header["size"]))


def answer(replies: BinaryIO, header: dict[str, Any], data: bytes) -> None:
    limits = ImageLimits(**header["limits"])
    limit_memory(limits.max_memory)
    limit_processor_time(limits.max_seconds + 1)
    pixels: Pixels | None = None
    told: dict[str, Any]
    try:
        pixels = decode(data, limits, tuple(header["background"]))
        told = {"height": pixels.shape[0], "width": pixels.shape[1]}
    except Undecodable as refused:
        told = {"error": refused.kind, "reason": refused.reason}
    except MemoryError:
        told = {"error": "ImageTooLarge", "reason": too_much_memory(limits)}
    replies.write(json.dumps(told).encode() + b"\n")
    if pixels is not None:
        replies.write(pixels.data)
    replies.flush()
