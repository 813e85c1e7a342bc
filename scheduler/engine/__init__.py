"""The inference engine: a llama.cpp model in a child process that decodes many calls in one batch."""
