"""The event publisher: the only way onto the bus."""
