"""Criteria that use curvature: what stays is moved to make up for what goes."""
