"""The HTTP server: the only asynchronous code. `run.serve` starts it, `app` is what it serves."""
