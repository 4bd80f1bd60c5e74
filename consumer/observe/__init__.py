"""What operators see: metrics, logs and the HTTP endpoints."""
