"""How results and events are shown on a terminal."""
