"""Subscribers to a server's events: what is done with them outside the flow."""
