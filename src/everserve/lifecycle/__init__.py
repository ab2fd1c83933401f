"""The states of a server and of its connections: each changed in one place, and reported from there."""
