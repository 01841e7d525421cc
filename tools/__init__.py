"""Commands of their own, which nothing imports but their tests."""
