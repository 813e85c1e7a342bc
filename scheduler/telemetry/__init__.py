"""What the broker tells others: Prometheus metrics and OpenTelemetry spans."""
