"""The data sources, one a file; each registers itself in ``cutback.train.data.data_sources`` by its scheme."""
