"""What a text says without a model: a lexical reading, and two texts compared."""
