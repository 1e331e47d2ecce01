"""What to remove: budgets, selection, and the immutable plan they end in."""
