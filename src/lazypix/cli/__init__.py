"""The command line, thin over `Library`. `main.app` is all of it, one module a group of commands."""
