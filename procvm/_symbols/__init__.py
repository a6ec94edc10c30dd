"""ELF files, as bytes in and tuples out: what is in them, symbols, and the notes of cores."""
