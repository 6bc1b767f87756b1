"""What defaults do on small families of many kinds: where a merge ends against its base."""
