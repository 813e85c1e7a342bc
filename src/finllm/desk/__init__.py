"""The desk: what all runs of a process share — ledger, backends, dispatch, spending — opened once."""
