"""Typed decoding: a schema becomes a template, and one rule fills it for every tier."""
