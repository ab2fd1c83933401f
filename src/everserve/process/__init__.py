"""One process and many: running servers, signals, draining. Acts on servers from outside."""
