"""Training of GRIT checkpoints: `python -m training.train training/recipes/NAME.toml`."""
