"""Checks on what goes into and out of models: sanitising, grounding, compliance rules and the audit log."""
