"""The drill: faults on a real stack under load, and what they lost, doubled or delayed."""
