"""What each rung of a model does on this machine: measured, kept, and looked up."""
