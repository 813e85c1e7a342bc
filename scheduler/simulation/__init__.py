"""A simulator of machines and tasks, on which placement policies are compared without a model."""
