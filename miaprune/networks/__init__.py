"""The network architectures and the pruners (method, sections 3 and 5)."""
