"""Turns Kafka topics into a multi-model PyTorch inference service."""
