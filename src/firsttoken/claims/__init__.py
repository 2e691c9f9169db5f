"""The claims that this book tests, a folder each."""
