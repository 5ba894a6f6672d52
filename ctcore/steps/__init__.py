"""The declared steps as one graph, and the facts that they return."""
