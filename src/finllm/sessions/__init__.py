"""What the doors work on: inputs checked and opened, batches, refinement."""
