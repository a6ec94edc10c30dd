"""The tracer: a small process of its own that holds targets still.

It is not imported by the tool, which starts it and talks to it over sockets
(`_hold.client`). It alone imports python-ptrace.
"""
