"""Hubs, repositories and caches that mean harm: what comes of them, and what never does."""
