"""The customer of the integration and end-to-end tests: personal data so distinctive that a log line shows it."""

ADDRESS = {
    "street": "17 Foxglove Lane",
    "city": "Quillbury",
    "state": "Westermark",
    "zipCode": "QB-90417",
    "country": "US",
}
PERSONAL = (
    "@example.com",  # every e-mail address of the tests and of the fixtures in events/
    *(ADDRESS[name] for name in ("street", "city", "state", "zipCode")),
    "1 Main St",  # the address in the fixtures in events/
    "Seattle",
)
"""What no log line of a function may contain."""
