"""Protocols as bytes alone: decoders and encoders, without sockets, threads or a clock.

The callers (``admission``, ``streams``, a user's handler) read and write the bytes.
"""
