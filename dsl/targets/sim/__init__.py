"""Generated CUDA C++ and Metal source, executed on a CPU; see README.md."""
