"""Measurements of nbloader against its peers, from the outside: through public names only."""
