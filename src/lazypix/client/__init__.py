"""A library on another machine: `Client` speaks to its server over HTTP."""
