"""When does the sink appear in training?"""
