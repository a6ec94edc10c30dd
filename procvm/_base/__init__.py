"""What every room stands on: addresses, value types, descriptors, text."""
