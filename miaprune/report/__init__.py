"""What results say: one attack's JSON, tables of many, figures, verdicts on claims (method, sections 10 and 11)."""
