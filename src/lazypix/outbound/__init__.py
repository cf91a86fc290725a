"""Requests to URLs that others name: `rules` say what may be reached, `connecting` sees to it, `client` asks."""
