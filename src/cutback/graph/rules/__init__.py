"""One file a family of operators; each registers functions that follow channels through its operators."""
