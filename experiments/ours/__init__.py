"""The search for a data-free default: candidates, trials, and how the last ones were judged."""
