"""Message handlers: a method for each message, connections that wait for nothing, and channels."""
