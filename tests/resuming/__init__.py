"""Runs that are killed and gone on with."""
