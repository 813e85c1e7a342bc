"""What makes the adapters: the corpus and the training. Run from the root of the repository; not shipped."""
