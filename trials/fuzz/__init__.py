"""The fuzz run: hundreds of thousands of requests that nobody would send, at a real server."""
