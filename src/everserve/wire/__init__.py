"""Protocols as bytes alone: decoders that are fed, and encoders; no sockets, no threads, no clock.

What reads and writes the bytes (``admission``, ``streams``, a user's handler) stands above.
"""
