"""Benchmark of the inference engine beside other llama.cpp servers."""
