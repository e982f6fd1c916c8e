"""The kernel library: one module a family, each kernel with its shapes, dtypes and source."""
