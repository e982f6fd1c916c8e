"""Sizes that programs are compiled for: a request is padded up to the next one.

XLA compiles one program per shape, so free sizes would mean a compilation in the middle of requests.
"""

from collections.abc import Sequence

SEQUENCE_BUCKETS = (16, 32, 64, 128, 256, 512)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)


def bucket(size: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `size`; ValueError if none does."""
    for candidate in sizes:
        if size <= candidate:
            return candidate
    raise ValueError(f"{size} is beyond the largest bucket, {sizes[-1]}")


def sequence_buckets(longest: int) -> tuple[int, ...]:
    """Powers of two from 16 that are below `longest`, then `longest` itself.

    >>> sequence_buckets(100)
    (16, 32, 64, 100)
    """
    sizes = []
    size = SEQUENCE_BUCKETS[0]
    while size < longest:
        sizes.append(size)
        size *= 2
    return (*sizes, longest)
