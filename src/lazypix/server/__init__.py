"""The HTTP server, which is asynchronous. `run.serve` starts it, `app` is what it serves."""
