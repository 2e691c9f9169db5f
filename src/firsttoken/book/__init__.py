"""The book: chapters are run, pages built, jobs sent to a cluster."""
