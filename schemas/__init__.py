"""What crosses a process boundary: specs, resources and wire names. Imports pydantic only."""
