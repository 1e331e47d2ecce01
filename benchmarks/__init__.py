"""What is measured about cutback; none of it is part of the package."""
