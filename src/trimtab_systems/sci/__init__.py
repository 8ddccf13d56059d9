"""Structure and content kept apart: a model that learns SCAN commands of at most 22 actions and follows longer ones."""
