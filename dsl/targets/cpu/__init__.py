"""The `cpu` target: C++ of `dsl.lower.host` behind an XLA FFI handler, built by the system's compiler."""
