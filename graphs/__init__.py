"""The LangGraph of a run: its state, its nodes, where it branches, waits for a person or stops."""
