"""Foundation: errors, atomic files, hashes, keyed noise, restricted unpickling, registry, progress, devices, threads. No faces."""
