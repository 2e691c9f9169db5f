"""What is lost without the first token?"""
