"""Instruments to hedge with: what one lot of each is, and what it costs; the list that comes with finllm, and yours."""
