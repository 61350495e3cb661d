"""The data sets, from published archives to batches, and who trains on which records (method, section 2)."""
