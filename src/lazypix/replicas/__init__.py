"""Copies of a library's blobs in other stores: which, under which keys, put and verified, compared and repaired."""
