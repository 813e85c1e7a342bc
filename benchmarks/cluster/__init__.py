"""Benchmark of the cluster: what it costs beside one process, how nodes come and go, and live faults."""
