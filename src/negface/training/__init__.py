"""Training of autoencoders and denoisers: recipes, cached data, a resumable loop, EMA, checkpoints, guards."""
