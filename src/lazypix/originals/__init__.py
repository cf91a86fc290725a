"""Originals, so that store and catalog never disagree about them: uploaded, read, removed."""
