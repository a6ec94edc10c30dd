"""Holding live processes: attach, spawn, stops, atomics, signals, and the end of the tool."""
