"""The only room that mutates a model: cuts, their proof, and what has to be carried along."""
