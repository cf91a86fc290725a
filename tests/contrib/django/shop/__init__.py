"""An application of Django's for tests."""
