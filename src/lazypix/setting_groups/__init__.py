"""The settings, each beside those that it is about: `Settings` is all of them."""
