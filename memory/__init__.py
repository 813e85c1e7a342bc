"""What outlives a run: the ledger of model calls, the knowledge base, the store of runs and the source texts."""
