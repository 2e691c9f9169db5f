"""Is a model with a sink less sensitive to small changes?"""
