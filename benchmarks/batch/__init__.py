"""Benchmark of batches: many scenarios side by side against one after another."""
