"""What is a sink? Every head of a model on one text."""
