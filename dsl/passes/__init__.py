"""Passes: each a pure function Kernel -> Kernel that keeps what the kernel computes. See `pipeline`."""
