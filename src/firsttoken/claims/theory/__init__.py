"""Rank collapse, path sums and the over-squashing bound on real attention maps."""
