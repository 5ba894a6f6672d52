"""The parts that commands share: the renderer, trees, progress bars and common options."""
