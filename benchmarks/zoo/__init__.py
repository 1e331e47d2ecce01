"""The scoreboard: every architecture of the public model zoos, cut and proven."""
