"""How much does a token depend on an earlier one?"""
