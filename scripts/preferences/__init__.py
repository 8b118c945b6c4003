"""What scripts about human judgements are made of."""
