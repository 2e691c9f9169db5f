"""How far does the change of one word travel?"""
