"""The shell around the Kafka client: source, sink and admin. A client's message object never leaves it."""
