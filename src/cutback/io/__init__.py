"""Files: safetensors for values, JSON for plans, nothing that executes."""
