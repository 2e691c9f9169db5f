"""Do larger models have more of it?"""
