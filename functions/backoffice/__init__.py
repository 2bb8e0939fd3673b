"""The back office: figures, failed events and stock, for staff."""
