"""The DLQ processor: turns what failed into records, alerts, and retries what is transient."""
