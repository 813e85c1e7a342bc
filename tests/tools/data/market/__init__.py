"""Market data of the user: files, names, extension, checks, the home."""
