"""Maps: scores, change between periods, and their pictures."""
