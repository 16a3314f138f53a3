"""What runs: the queue, leadership, and one task for each NodeDrain. It decides nothing that `core` can decide."""
