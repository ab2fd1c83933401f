"""The operating system's sockets: making, accepting, inheriting and waking them."""
