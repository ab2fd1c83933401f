"""Where a request runs: one strategy a file, strangers to one another and to the servers."""
