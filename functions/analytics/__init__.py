"""The analytics service: what was ordered, sold and taken back, counted once per event."""
