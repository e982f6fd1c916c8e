"""The `pallas` target: the IR as one `pallas_call`, interpreted on a CPU, lowered through Triton on CUDA."""
