"""The screens, one a file; each owns what happens on it."""
