"""The tracing front end: what a kernel's author writes. Import the names from `dsl` itself."""
