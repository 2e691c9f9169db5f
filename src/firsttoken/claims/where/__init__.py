"""Does the sink belong to the token or to the place?"""
