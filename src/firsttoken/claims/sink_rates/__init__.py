"""How many heads are sinks?"""
