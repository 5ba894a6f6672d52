"""Registry nodes, selections, pairings and filters: which nodes a person means."""
