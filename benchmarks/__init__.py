"""Measurements beside peers, one command each; they fill the pages under docs/."""
