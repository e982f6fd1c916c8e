"""Kernels on NVIDIA GPUs: NVRTC, and the launcher that JAX's plugin brings."""
