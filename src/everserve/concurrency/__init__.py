"""Where a request runs: one strategy a file. Strategies import no other strategy and no server."""
