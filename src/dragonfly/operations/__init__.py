"""What operators did, and what they tell everybody."""
