"""Calling kernels: choice of backend (`select`), `vmap` (`vmap`), gradients (`grad`)."""
