"""Health of backends: circuit breakers, leases, services and the status of each process."""
