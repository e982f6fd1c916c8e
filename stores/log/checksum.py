"""CRC-32 (ISO 3309, as zlib has it), by the processor's own instructions where there is a build of ISA-L."""

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
