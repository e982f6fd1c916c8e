"""C++ for the host's own processor, from the same IR as every other target."""
