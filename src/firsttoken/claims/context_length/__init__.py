"""Does training on longer contexts make sinks stronger?"""
