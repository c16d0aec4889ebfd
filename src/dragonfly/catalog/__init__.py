"""Models, prices, channels: what is sold and for how much."""
