"""Making nodes: calls, alone and watched, here or on Slurm, recorded as they end."""
