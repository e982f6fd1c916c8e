"""From the IR to something that runs: `oracle` (NumPy float64) and `xla` (jnp and lax)."""
