"""The places models come from, one a file; each registers itself in ``cutback.cli.models.model_sources``."""
