"""Kernels on Apple GPUs: source, its check on any machine, and the launch on a Mac."""
