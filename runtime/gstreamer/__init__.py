"""Streams through GStreamer: launch lines, the child process that runs them, and what feeds or drains it."""
