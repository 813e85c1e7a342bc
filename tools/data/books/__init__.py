"""Portfolios: their files, their positions, and the book that they are worth."""
