"""The seed's ``mm::io``: cursors and objects of memory, without a raw call."""
