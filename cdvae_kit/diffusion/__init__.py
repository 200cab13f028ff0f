"""Noise processes of the fields, and the samplers that step them together; knows fields, not networks."""
