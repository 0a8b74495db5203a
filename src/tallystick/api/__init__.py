"""The HTTP API: resources, authentication, idempotency, problem details. Decides nothing about money."""
