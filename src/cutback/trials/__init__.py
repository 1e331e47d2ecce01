"""What is found out on copies of a model that are cut for the purpose: measured latency, sensitivity."""
