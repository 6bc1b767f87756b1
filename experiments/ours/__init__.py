"""The search for a data-free default: candidates, their trials, and how the last ones are judged."""
