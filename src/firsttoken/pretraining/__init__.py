"""Small models trained for a claim: corpora, packing, budgets, runs, and the probe that watches a sink form."""
