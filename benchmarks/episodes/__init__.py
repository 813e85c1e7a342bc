"""Dated episodes, by a rule that looks back only, and an account of each as of that day: what runs are scored on."""
