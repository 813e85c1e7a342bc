"""The training corpus: hand-written items, a generator over causal channels, and the command that builds the splits."""
