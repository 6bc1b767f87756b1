"""Fine-tuning a foundation on the tasks of a suite."""
