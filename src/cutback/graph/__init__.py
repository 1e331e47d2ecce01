"""What is coupled: reads the model and changes nothing."""
