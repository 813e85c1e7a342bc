"""The nodes of the stress-test graph, one file a step."""
