"""Allocations, one a file: how a budget is shared out among groups."""
