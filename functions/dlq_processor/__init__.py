"""The DLQ processor: stores failed events, alerts operators, retries transient failures and redrives."""
