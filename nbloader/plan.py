"""Which files of a repository will be loaded, and by what."""
