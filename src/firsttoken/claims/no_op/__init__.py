"""Does a head that has nothing to do rest on the first token?"""
