"""What is read of a run afterwards: trace, story, difference, explanation, replay and pages."""
