"""What was made from what, up and down, and in what two makings differ."""
