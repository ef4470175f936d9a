"""Wire formats: bytes in, readings and rejects out. Nothing here does I/O, so sockets, tests and fuzzers share it."""
