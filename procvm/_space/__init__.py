"""A target's address space: typed access, mappings, walks, searches, scans."""
