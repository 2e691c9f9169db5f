"""Which tokens must a bounded cache keep?"""
