"""Addresses, value types, descriptors and text: the packages above all use these."""
