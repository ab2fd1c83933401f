"""The process: runs servers, receives signals, drains. Acts on servers from outside."""
