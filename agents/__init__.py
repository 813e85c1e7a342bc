"""The six reasoning roles: each is a prompt, a typed judgement, what it may read and its precision floor."""
