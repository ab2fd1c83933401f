"""Subscribers to a server's events, which work outside the flow."""
