"""Quantities that budgets bound, one a file."""
