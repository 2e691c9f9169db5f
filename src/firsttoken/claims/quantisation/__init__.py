"""What does keeping the first token exact save?"""
