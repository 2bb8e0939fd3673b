"""What the services share: events, the event store, settings, problems, observability, idempotency."""
