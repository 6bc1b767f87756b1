"""Adapters (LoRA and its like), read from several programs' files and put into their models."""
