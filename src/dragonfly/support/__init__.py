"""Support: what people ask, what operators answer, and requests about data that need a review."""
