"""Tracees: processes that can be held still, by way of the tracer."""
