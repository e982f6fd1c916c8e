"""Targets that need a compiler: `cuda`, `metal`, and `sim`, which runs the code of both on a CPU."""
