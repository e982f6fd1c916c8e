"""How much of the machine one untrusted image may use while it is decoded."""

from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class ImageLimits:
    """Bounds for decoding one image; past any of them it is refused with `ImageTooLarge`.

    Args:
        max_bytes: size of the file.
        max_pixels: width times height, compared before a pixel is decoded.
        max_seconds: wall-clock time, and CPU time, of the decoding.
        max_memory: address space of the decoding process in bytes (where the system can enforce it).
    """

    max_bytes: int = 32 * MEGABYTE
    max_pixels: int = 40_000_000
    max_seconds: float = 20.0
    max_memory: int = 1024 * MEGABYTE
