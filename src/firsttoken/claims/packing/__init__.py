"""Do packing and a fixed BOS token decide where the sink forms?"""
