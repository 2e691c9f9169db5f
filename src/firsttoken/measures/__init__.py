"""What is measured: pure functions that two claims or more use."""
