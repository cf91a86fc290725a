"""Keeping a library in order: verifying, mending, cleaning, rebuilding, moving; none of it in a request's way."""
