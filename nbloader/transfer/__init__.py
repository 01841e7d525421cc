"""The parent's side of a transfer: it runs workers, listens, and decides what follows a failure.

Its modules are imported by themselves, not from here: a worker needs `protocol` and `policy` alone,
and `protocol` brings pydantic, which nothing needs before the first load.
"""

START_MARK = b"nbloader begins here\n"
"""The line after which a child process speaks; what stands before it was printed by others."""
