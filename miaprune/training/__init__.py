"""The training loop, the defences as its objectives, and resuming (method, sections 4, 5 and 9)."""
