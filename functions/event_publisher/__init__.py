"""The event publisher: the only function that may put events on the bus."""
