"""Criteria: how much each weight counts. The smallest scores are cut."""
