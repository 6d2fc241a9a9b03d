"""Foundation: errors, atomic files, hashes, noise, restricted unpickling, registry, progress, devices. No faces."""
