"""What each chapter draws: one module a chapter, functions from records to `plots.Display`."""
