"""Is attention smoother without the sink?"""
