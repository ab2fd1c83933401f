"""The operating system's sockets: how to make, accept, inherit and wake them."""
